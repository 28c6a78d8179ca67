#include "server/pipeline/operators_pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/operators/operator_classes.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

constexpr int64_t kMaxGroupBytes = int64_t{64} << 20;

// Where operator `index` of the batch finds its part of an argument whose leading dimensions
// broadcast: both counted row by row.
int64_t BroadcastIndex(int64_t index, std::span<const int64_t> batch,
                       std::span<const int64_t> argument_batch) {
  int64_t result = 0;
  int64_t stride = 1;
  for (size_t d = 1; d <= argument_batch.size(); ++d) {  // From the last dimension on.
    const int64_t size = batch[batch.size() - d];
    const int64_t argument_size = argument_batch[argument_batch.size() - d];
    if (argument_size > 1) result += index % size * stride;
    stride *= argument_size;
    index /= size;
  }
  return result;
}

// Cuts the batch into groups of operators and each argument into what a group needs of it.
class Batch {
 public:
  Batch(const OperatorsJob& job, std::span<const at::Tensor> arguments) : job_(job) {
    for (size_t a = 0; a < arguments.size(); ++a) {
      const std::vector<int64_t>& shape = job.arguments[a].shape;
      const size_t leading = shape.size() - AxisCount(job.arguments[a].name);
      std::vector<int64_t> flat(shape.begin() + leading, shape.end());
      flat.insert(flat.begin(), -1);
      leading_.push_back({shape.begin(), shape.begin() + leading});
      flat_.push_back(arguments[a].reshape(flat));
      const int64_t parts = arguments[a].is_complex() ? 2 : 1;
      bytes_ += parts * static_cast<int64_t>(sizeof(double)) * flat_[a][0].numel();
    }
  }

  // As many operators as fit in kMaxGroupBytes as float64, and one per thread at least.
  int64_t GroupSize(int threads) const {
    return std::min(std::max<int64_t>(kMaxGroupBytes / bytes_, threads), job_.shape.head_count);
  }

  absl::StatusOr<std::unique_ptr<operators::SequenceOperator>> Build(int64_t first,
                                                                     int64_t count) const {
    operators::OperatorArguments group{.tensors = {}, .read_before = job_.read_before};
    for (size_t a = 0; a < flat_.size(); ++a) {
      group.tensors[job_.arguments[a].name] = Part(a, first, count);
    }
    ESS_ASSIGN_OR_RETURN(operators::BuiltOperator built,
                         operators::BuildOperator(job_.class_name, group));
    return std::move(built.op);
  }

 private:
  size_t AxisCount(std::string_view name) const {
    for (const operators::OperatorClass& known : operators::AllOperatorClasses()) {
      if (known.name != job_.class_name) continue;
      for (const operators::OperatorArgument& argument : known.arguments) {
        if (argument.name == name) return argument.axes.size();
      }
    }
    ESS_CHECK(false && "an argument that CheckDeclaration knows");
    return 0;
  }

  // What operators [first, first + count) need of one argument: [count, its own axes...].
  at::Tensor Part(size_t argument, int64_t first, int64_t count) const {
    const at::Tensor& flat = flat_[argument];
    if (flat.size(0) == job_.shape.head_count) return flat.narrow(0, first, count);
    if (flat.size(0) == 1) return flat[0];
    std::vector<int64_t> indices(count);
    for (int64_t i = 0; i < count; ++i) {
      indices[i] = BroadcastIndex(first + i, job_.shape.batch_shape, leading_[argument]);
    }
    return flat.index_select(0, at::tensor(indices, at::kLong));
  }

  const OperatorsJob& job_;
  std::vector<std::vector<int64_t>> leading_;  // Per argument: its leading dimensions,
  std::vector<at::Tensor> flat_;               // and its values with these as one.
  int64_t bytes_ = 0;                          // Of one operator.
};

// Finite factors can have products that are not: the caller's doing, unlike in a model. Says where,
// or OK.
absl::Status FindOverflow(const operators::SequenceOperator& op, int64_t first,
                          const CancellationToken& cancellation) {
  const int64_t length = op.length();
  std::vector<double> matrix(length * length);
  for (int64_t head = 0; head < op.head_count(); ++head) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    op.DenseHead(head, matrix);
    const auto found =
        std::find_if(matrix.begin(), matrix.end(), [](double x) { return !std::isfinite(x); });
    if (found == matrix.end()) continue;
    const int64_t entry = found - matrix.begin();
    return absl::InvalidArgumentError(
        fmt::format("data: T[{}, {}] of operator {} of the batch is {}; products of its factors "
                    "must be finite",
                    entry / length, entry % length, first + head, *found));
  }
  return absl::OkStatus();
}

absl::Status SendGroup(const OperatorsJob& job, int64_t first, int64_t count,
                       const OperatorEss& ess, MeanOverHeads& mean, OperatorsReceiver& receiver) {
  switch (job.reduction) {
    case Reduction::kNone:
      return receiver.OnEss(first, ess);
    case Reduction::kPositions:
      return receiver.OnEss(first, MeanOverPositions(ess, job.measures, job.positions));
    case Reduction::kHeads:
      mean.Add(ess, std::vector<double>(count, 1));
      if (first + count < job.shape.head_count) return absl::OkStatus();
      return receiver.OnEss(0, mean.Take());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ProfileOperators(const OperatorsJob& job, std::span<const at::Tensor> arguments,
                              const EssEngine& engine, const CancellationToken& cancellation,
                              OperatorsReceiver& receiver, StageTimes& stages) {
  LayerRecord record = LayerRecord::Empty(job.measures.size(), job.shape.head_count);
  MeanOverHeads mean;
  const Batch batch(job, arguments);
  const int64_t group_size = batch.GroupSize(engine.threads());
  for (int64_t first = 0; first < job.shape.head_count; first += group_size) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t count = std::min(group_size, job.shape.head_count - first);
    absl::StatusOr<OperatorEss> ess;
    std::unique_ptr<operators::SequenceOperator> op;
    {
      StageTimer timer(stages, "ess");
      ESS_ASSIGN_OR_RETURN(op, batch.Build(first, count));
      std::vector<int64_t> heads(count);
      std::iota(heads.begin(), heads.end(), 0);
      ess = engine.Compute(*op, heads, job.positions, job.measures, job.options, cancellation);
      if (ess.status().code() == absl::StatusCode::kInternal) {
        ESS_RETURN_IF_ERROR(FindOverflow(*op, first, cancellation));
      }
      ESS_RETURN_IF_ERROR(ess.status());
    }
    StageTimer timer(stages, "send");
    if (first == 0) ESS_RETURN_IF_ERROR(receiver.OnBegin(op->state_size()));
    record.Add(job.measures, *ess, first);
    ESS_RETURN_IF_ERROR(SendGroup(job, first, count, *ess, mean, receiver));
  }
  return receiver.OnSummary(record);
}

}  // namespace ess
