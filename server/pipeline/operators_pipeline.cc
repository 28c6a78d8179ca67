#include "server/pipeline/operators_pipeline.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/ess/route.h"
#include "server/operators/operator_classes.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

// Of a group of operators, whose values are sent together: bytes of these, operators for each
// thread at least, and operators at most where the threads are few.
constexpr int64_t kGroupBytes = int64_t{256} << 10;
constexpr int64_t kMinPerThread = 8;
constexpr int64_t kMaxGroup = 1024;

int64_t GroupSize(const OperatorsJob& job, int threads) {
  int64_t values = 0;
  for (const Measure& measure : job.measures) values += measure.ValuesPerPosition();
  const int64_t bytes = values * std::ssize(job.positions) * ValueBytes(job.options);
  const int64_t fitting = std::min(kGroupBytes / std::max<int64_t>(bytes, 1), kMaxGroup);
  return std::max(fitting, kMinPerThread * threads);
}

absl::StatusOr<std::unique_ptr<operators::SequenceOperator>> Build(
    const OperatorsJob& job, std::span<const at::Tensor> arguments) {
  operators::OperatorArguments named{.tensors = {}, .read_before = job.read_before};
  for (size_t a = 0; a < arguments.size(); ++a) {
    named.tensors[job.arguments[a].name] = arguments[a];
  }
  ESS_ASSIGN_OR_RETURN(operators::BuiltOperator built,
                       operators::BuildOperator(job.class_name, named));
  return std::move(built.op);
}

absl::Status CheckWork(const OperatorsJob& job, const operators::SequenceOperator& op) {
  const double work = ReferenceWork(ShapeOf(op), job.measures, job.options, job.positions) *
                      static_cast<double>(op.head_count());
  if (work <= job.max_reference_work) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "measures: these need {:.2g} floating point operations in singular value decompositions; the "
      "limit is {:.2g} (max_reference_work); ask for other measures, no horizon, or fewer "
      "operators "
      "or positions",
      work, job.max_reference_work));
}

// Finite factors can have products that are not: the caller's doing, unlike in a model. Says where,
// or OK.
absl::Status FindOverflow(const operators::SequenceOperator& op, std::span<const int64_t> heads,
                          const CancellationToken& cancellation) {
  const int64_t length = op.length();
  std::vector<double> matrix(length * length);
  for (const int64_t head : heads) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    op.DenseHead(head, matrix);
    const auto found =
        std::find_if(matrix.begin(), matrix.end(), [](double x) { return !std::isfinite(x); });
    if (found == matrix.end()) continue;
    const int64_t entry = found - matrix.begin();
    return absl::InvalidArgumentError(
        fmt::format("data: T[{}, {}] of operator {} of the batch is {}; products of its factors "
                    "must be finite",
                    entry / length, entry % length, head, *found));
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
  ESS_RETURN_IF_ERROR(cancellation.Check());
  std::unique_ptr<operators::SequenceOperator> op;
  {
    StageTimer timer(stages, "ess");
    ESS_ASSIGN_OR_RETURN(op, Build(job, arguments));
  }
  ESS_RETURN_IF_ERROR(CheckWork(job, *op));
  ESS_RETURN_IF_ERROR(receiver.OnBegin(op->state_size()));

  LayerRecord record = LayerRecord::Empty(job.measures.size(), op->head_count());
  MeanOverHeads mean;
  const int64_t group_size = GroupSize(job, engine.threads());
  for (int64_t first = 0; first < op->head_count(); first += group_size) {
    std::vector<int64_t> heads(std::min(group_size, op->head_count() - first));
    std::iota(heads.begin(), heads.end(), first);
    absl::StatusOr<OperatorEss> ess;
    {
      StageTimer timer(stages, "ess");
      ess = engine.Compute(*op, heads, job.positions, job.measures, job.options, cancellation);
      if (ess.status().code() == absl::StatusCode::kInternal) {
        ESS_RETURN_IF_ERROR(FindOverflow(*op, heads, cancellation));
      }
      ESS_RETURN_IF_ERROR(ess.status());
    }
    record.Add(job.measures, *ess, first);
    StageTimer timer(stages, "send");
    ESS_RETURN_IF_ERROR(SendGroup(job, first, std::ssize(heads), *ess, mean, receiver));
  }
  return receiver.OnSummary(record);
}

}  // namespace ess
