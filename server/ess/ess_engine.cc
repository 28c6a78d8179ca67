// Measures of one operator, head by head. Each head goes through the same steps on one thread, so
// the number of threads changes nothing but the time.
#include "server/ess/ess_engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/ess/head_ess.h"
#include "server/linalg/serial_torch.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

absl::Status CheckRequest(const operators::SequenceOperator& op,
                          std::span<const Measure> measures) {
  for (const Measure& measure : measures) {
    ESS_RETURN_IF_ERROR(ValidateMeasure(measure));
    if (measure.kind != Kind::kCausal) continue;
    if (op.state_size().kind != operators::StateSize::Kind::kConstant) {
      return absl::InvalidArgumentError(fmt::format(
          "measure causal: {} is not a recurrence; only recurrences have it", op.class_name()));
    }
    return absl::UnimplementedError(
        fmt::format("measure causal is not available for {} yet", op.class_name()));
  }
  return absl::OkStatus();
}

// Whether the inertia tree may leave this measure to SVD. A row of attention sums to 1, so
// sigma_1 <= sqrt(L); 1e-6 leaves room for other operators of that size.
bool MayBeTooSmallForTree(const Measure& measure, int64_t length) {
  if (measure.kind == Kind::kHeadRelative) return measure.value < kSmallestTreeTolerance;
  return measure.kind == Kind::kTolerance &&
         measure.value < std::max(1e-6, kSmallestTreeTolerance * std::sqrt(length));
}

std::string RouteName(const Measure& measure, int64_t by_reference, int64_t heads) {
  if (measure.kind == Kind::kFrobeniusNorm) return "prefix_sums";
  if (by_reference == 0) return "inertia_tree";
  return by_reference == heads ? "reference_svd" : "inertia_tree+reference_svd";
}

OperatorEss Join(std::span<const HeadEss> heads, std::span<const Measure> measures) {
  OperatorEss joined;
  joined.values.resize(measures.size());
  for (const HeadEss& head : heads) joined.noise_floors.push_back(head.noise_floor);
  for (size_t m = 0; m < measures.size(); ++m) {
    int64_t by_reference = 0;
    for (const HeadEss& head : heads) {
      joined.values[m].insert(joined.values[m].end(), head.values[m].begin(), head.values[m].end());
      by_reference += head.by_reference[m];
    }
    joined.routes.push_back(RouteName(measures[m], by_reference, heads.size()));
  }
  return joined;
}

}  // namespace

bool NeedsReference(const Measure& measure) {
  switch (measure.kind) {
    case Kind::kRelative:
    case Kind::kEntropy:
    case Kind::kSpectralNorm:
    case Kind::kSingularValues:
      return true;
    case Kind::kTolerance:
    case Kind::kHeadRelative:
    case Kind::kFrobeniusNorm:
    case Kind::kCausal:
      return false;
  }
  return false;
}

double ReferenceWork(std::span<const Measure> measures, int64_t length,
                     std::span<const int64_t> positions) {
  const bool needed = std::any_of(measures.begin(), measures.end(), [length](const Measure& m) {
    return NeedsReference(m) || MayBeTooSmallForTree(m, length);
  });
  if (!needed) return 0;
  double operations = 0;
  for (const int64_t position : positions) {
    const double m = static_cast<double>(std::max(position, length - position));
    const double n = static_cast<double>(std::min(position, length - position));
    operations += 4 * m * n * n - 4.0 / 3.0 * n * n * n;
  }
  return operations;
}

absl::StatusOr<OperatorEss> EssEngine::Compute(const operators::SequenceOperator& op,
                                               std::span<const int64_t> heads,
                                               std::span<const int64_t> positions,
                                               std::span<const Measure> measures,
                                               const EssOptions& options,
                                               const CancellationToken& cancellation) const {
  if (options != EssOptions{}) {
    return absl::UnimplementedError("options: horizon and certify are not available yet");
  }
  ESS_RETURN_IF_ERROR(CheckRequest(op, measures));
  for (const int64_t head : heads) ESS_CHECK(head >= 0 && head < op.head_count());
  for (const int64_t position : positions) ESS_CHECK(position >= 0 && position < op.length());

  std::vector<HeadWork> work(pool_.threads());
  std::vector<HeadEss> results(heads.size());
  std::vector<absl::Status> statuses(heads.size());
  std::atomic<bool> failed = false;
  const auto compute = [&](int64_t index, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    const linalg::SerialTorch serial;
    statuses[index] = CatchTorch("ESS of an operator", [&]() -> absl::Status {
      ESS_ASSIGN_OR_RETURN(results[index], ComputeHead(op, heads[index], positions, measures,
                                                       work[thread], cancellation));
      return absl::OkStatus();
    });
    if (!statuses[index].ok()) failed.store(true, std::memory_order_relaxed);
  };
  ESS_RETURN_IF_ERROR(pool_.ParallelFor(heads.size(), compute, cancellation));
  for (const absl::Status& status : statuses) ESS_RETURN_IF_ERROR(status);
  return Join(results, measures);
}

}  // namespace ess
