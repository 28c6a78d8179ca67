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

absl::Status CheckRequest(const operators::SequenceOperator& op, std::span<const Measure> measures,
                          const EssOptions& options) {
  if (options.horizon && *options.horizon < 1) {
    return absl::InvalidArgumentError(
        fmt::format("options: horizon {} is not allowed; it must be at least 1", *options.horizon));
  }
  for (const Measure& measure : measures) {
    ESS_RETURN_IF_ERROR(ValidateMeasure(measure));
    if (measure.kind == Kind::kCausal &&
        op.state_size().kind != operators::StateSize::Kind::kConstant) {
      return absl::InvalidArgumentError(fmt::format(
          "measure causal: {} is not a recurrence; only recurrences have it", op.class_name()));
    }
  }
  return absl::OkStatus();
}

OperatorEss Join(std::span<const HeadEss> heads, std::span<const Measure> measures,
                 const EssOptions& options) {
  OperatorEss joined;
  joined.values.resize(measures.size());
  if (options.certify) joined.certain.resize(measures.size());
  std::vector<RouteSet> routes(measures.size());
  for (const HeadEss& head : heads) {
    joined.noise_floors.push_back(head.noise_floor);
    for (size_t m = 0; m < measures.size(); ++m) {
      routes[m].Add(head.routes[m]);
      joined.values[m].insert(joined.values[m].end(), head.values[m].begin(), head.values[m].end());
      if (!options.certify) continue;
      joined.certain[m].insert(joined.certain[m].end(), head.certain[m].begin(),
                               head.certain[m].end());
    }
  }
  for (const RouteSet& route : routes) joined.routes.push_back(route.Name());
  return joined;
}

// A row of attention sums to 1, so sigma_1 <= sqrt(L); 1e-6 leaves room for other operators of
// that size.
bool MayNeedSvd(const Measure& measure, int64_t length) {
  switch (measure.kind) {
    case Kind::kSingularValues:
      return true;
    case Kind::kRelative:
    case Kind::kHeadRelative:
      return measure.value < kSmallestFastTolerance;
    case Kind::kTolerance:
      return measure.value <
             std::max(1e-6, kSmallestFastTolerance * std::sqrt(static_cast<double>(length)));
    default:
      return false;
  }
}

}  // namespace

double ReferenceWork(const OperatorShape& shape, std::span<const Measure> measures,
                     const EssOptions& options, std::span<const int64_t> positions) {
  const bool needed = std::any_of(measures.begin(), measures.end(), [&](const Measure& m) {
    return options.horizon.has_value() || MayNeedSvd(m, shape.length);
  });
  if (!needed) return 0;
  const bool dense = options.horizon || SvdRoute(ChooseRoute(shape)) == Route::kReferenceSvd;
  const int64_t horizon = options.horizon.value_or(shape.length);
  double operations = 0;
  for (const int64_t position : positions) {
    int64_t rows = std::min(shape.length - position, horizon);
    int64_t columns = position;
    if (!dense) {
      rows = std::min(rows, shape.state_size.size);
      columns = std::min(columns, shape.state_size.size);
    }
    const double m = static_cast<double>(std::max(rows, columns));
    const double n = static_cast<double>(std::min(rows, columns));
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
  ESS_RETURN_IF_ERROR(CheckRequest(op, measures, options));
  for (const int64_t head : heads) ESS_CHECK(head >= 0 && head < op.head_count());
  for (const int64_t position : positions) ESS_CHECK(position >= 0 && position < op.length());

  const Route route = ChooseRoute(ShapeOf(op));
  std::vector<HeadWork> work(pool_.threads());
  std::vector<HeadEss> results(heads.size());
  std::vector<absl::Status> statuses(heads.size());
  std::atomic<bool> failed = false;
  const auto compute = [&](int64_t index, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    const linalg::SerialTorch serial;
    statuses[index] = CatchTorch("ESS of an operator", [&]() -> absl::Status {
      ESS_ASSIGN_OR_RETURN(results[index], ComputeHead(op, heads[index], positions, measures,
                                                       options, route, work[thread], cancellation));
      return absl::OkStatus();
    });
    if (!statuses[index].ok()) failed.store(true, std::memory_order_relaxed);
  };
  ESS_RETURN_IF_ERROR(pool_.ParallelFor(heads.size(), compute, cancellation));
  for (const absl::Status& status : statuses) ESS_RETURN_IF_ERROR(status);
  return Join(results, measures, options);
}

}  // namespace ess
