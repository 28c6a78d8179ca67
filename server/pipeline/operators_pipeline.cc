#include "server/pipeline/operators_pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/status_macros.h"
#include "server/operators/operator_classes.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

constexpr int64_t kMaxGroupBytes = int64_t{64} << 20;

// Operators of a group: as many as fit in kMaxGroupBytes as float64, and one per thread at least.
int64_t GroupSize(const OperatorsJob& job, int threads) {
  int64_t bytes = 0;
  for (const OperatorArgument& argument : job.arguments) {
    const int64_t parts = c10::isComplexType(argument.dtype) ? 2 : 1;
    bytes += parts * static_cast<int64_t>(sizeof(double)) * argument.ElementCount() /
             argument.BatchCount();
  }
  return std::min(std::max<int64_t>(kMaxGroupBytes / bytes, threads), job.batch_count);
}

// Where operator `index` of the batch finds its part of an argument whose leading dimensions
// broadcast: both counted row by row.
int64_t BroadcastIndex(int64_t index, const std::vector<int64_t>& batch,
                       const std::vector<int64_t>& argument_batch) {
  int64_t result = 0;
  int64_t stride = 1;
  for (size_t d = 0; d < argument_batch.size(); ++d) {  // From the last dimension on.
    const int64_t size = batch[batch.size() - 1 - d];
    const int64_t argument_size = argument_batch[argument_batch.size() - 1 - d];
    if (argument_size > 1) result += index % size * stride;
    stride *= argument_size;
    index /= size;
  }
  return result;
}

// The parts of one argument for operators [first, first + count): [count, its own shape...].
at::Tensor GroupArgument(const OperatorsJob& job, const OperatorArgument& argument,
                         const at::Tensor& values, int64_t first, int64_t count) {
  std::vector<int64_t> shape = {argument.BatchCount()};
  shape.insert(shape.end(), argument.shape.begin(), argument.shape.end());
  const at::Tensor flat = values.view(shape);
  if (flat.size(0) == job.batch_count) return flat.narrow(0, first, count);
  if (flat.size(0) == 1) {
    shape[0] = count;
    return flat.expand(shape);
  }
  const at::Tensor indices = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    indices.mutable_data_ptr<int64_t>()[i] =
        BroadcastIndex(first + i, job.batch_shape, argument.batch_shape);
  }
  return flat.index_select(0, indices);
}

absl::StatusOr<std::unique_ptr<operators::SequenceOperator>> BuildGroup(
    const OperatorsJob& job, std::span<const at::Tensor> arguments, int64_t first, int64_t count) {
  operators::OperatorArguments group{.reads_before = job.reads_before};
  for (size_t a = 0; a < arguments.size(); ++a) {
    group.tensors[job.arguments[a].name] =
        GroupArgument(job, job.arguments[a], arguments[a], first, count);
  }
  return operators::BuildOperator(job.class_name, group);
}

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
      if (first + count < job.batch_count) return absl::OkStatus();
      return receiver.OnEss(0, mean.Take());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ProfileOperators(const OperatorsJob& job, std::span<const at::Tensor> arguments,
                              const EssEngine& engine, const CancellationToken& cancellation,
                              OperatorsReceiver& receiver, StageTimes& stages) {
  LayerRecord record = LayerRecord::Empty(job.measures.size(), job.batch_count);
  MeanOverHeads mean;
  const int64_t group_size = GroupSize(job, engine.threads());
  for (int64_t first = 0; first < job.batch_count; first += group_size) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t count = std::min(group_size, job.batch_count - first);
    absl::StatusOr<OperatorEss> ess;
    std::unique_ptr<operators::SequenceOperator> op;
    {
      StageTimer timer(stages, "ess");
      ESS_ASSIGN_OR_RETURN(op, BuildGroup(job, arguments, first, count));
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
