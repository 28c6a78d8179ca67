// Measures of one operator, head by head. Each head goes through the same steps on one thread, so
// the number of threads changes nothing but the time.
#include "server/ess/ess_engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/log.h"
#include "server/base/serial_torch.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/ess/channel_ess.h"
#include "server/ess/head_ess.h"
#include "server/ess/tensor_ess.h"
#include "server/linalg/tensor_spectra.h"
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

template <typename T>
void Append(const std::vector<T>& part, std::vector<T>& whole) {
  whole.insert(whole.end(), part.begin(), part.end());
}

OperatorEss Join(std::span<const std::vector<HeadEss>> tasks, std::span<const Measure> measures,
                 const EssOptions& options) {
  OperatorEss joined;
  joined.values.resize(measures.size());
  if (options.certify) joined.certain.resize(measures.size());
  std::vector<RouteSet> routes(measures.size());
  for (const std::vector<HeadEss>& task : tasks) {
    for (const HeadEss& head : task) {
      joined.noise_floors.push_back(head.noise_floor);
      for (size_t m = 0; m < measures.size(); ++m) {
        routes[m].Add(head.routes[m]);
        Append(head.values[m], joined.values[m]);
        if (options.certify) Append(head.certain[m], joined.certain[m]);
      }
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

// Of the tensor route on a CPU, where the heads of one thread are a batch of their own: at most as
// many as go together.
constexpr int64_t kTensorHeadsOnCpu = 8;

// Heads that one thread computes together: a single one, a group of channels or of matrices.
std::vector<std::span<const int64_t>> TasksOf(std::span<const int64_t> heads, int64_t length,
                                              Route route, bool on_accelerator) {
  if (on_accelerator) return {heads};
  int64_t lanes = 1;
  if (route == Route::kChannelWindows) lanes = linalg::ChannelSpectra().lanes();
  if (route == Route::kTensorTree) {
    lanes = std::clamp<int64_t>(
        linalg::TensorSpectra::kMostCpuBytes / linalg::TensorSpectra::BytesNeeded(length), 1,
        kTensorHeadsOnCpu);
  }
  std::vector<std::span<const int64_t>> tasks;
  for (size_t first = 0, end = 0; first < heads.size(); first = end) {
    while (end < heads.size() && heads[end] / lanes == heads[first] / lanes) ++end;
    tasks.push_back(heads.subspan(first, end - first));
  }
  return tasks;
}

// One thread's scratch.
struct ThreadWork {
  HeadWork head;
  std::optional<linalg::ChannelSpectra> channels;  // Made when they are needed.
};

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

Route EssEngine::RouteOf(const operators::SequenceOperator& op) const {
  OperatorShape shape = ShapeOf(op);
  if (op.dense_maps() != nullptr) {
    const bool fits = linalg::TensorSpectra::BytesNeeded(shape.length) <= options_.tensor_bytes;
    shape.on_accelerator = fits && (shape.on_accelerator || options_.tensors_on_cpu);
  }
  return ChooseRoute(shape);
}

absl::StatusOr<HeadEss> EssEngine::CachedHead(const operators::SequenceOperator& op, int64_t head,
                                              std::span<const int64_t> positions,
                                              std::span<const Measure> measures,
                                              const EssOptions& options, Route route,
                                              HeadWork& work,
                                              const CancellationToken& cancellation) const {
  const std::span<const double> invariant = op.InvariantHead(head);
  if (invariant.empty()) {
    return ComputeHead(op, head, positions, measures, options, route, work, cancellation);
  }
  std::string key = CacheKey(invariant, op.feature_epsilon(), positions, measures, options);
  if (std::optional<HeadEss> known = cache_.Find(key)) return *std::move(known);
  ESS_ASSIGN_OR_RETURN(
      HeadEss ess, ComputeHead(op, head, positions, measures, options, route, work, cancellation));
  cache_.Insert(std::move(key), ess);
  return ess;
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

  if (heads.empty()) return Join({}, measures, options);
  // A cut block is no longer what the native routes are made for.
  const Route route = options.horizon ? Route::kInertiaTree : RouteOf(op);
  if (route != Route::kInertiaTree) ESS_RETURN_IF_ERROR(op.CheckFinite());
  const bool on_accelerator = route == Route::kTensorTree && !op.dense_maps()->is_cpu();
  const std::vector<std::span<const int64_t>> tasks =
      TasksOf(heads, op.length(), route, on_accelerator);
  std::vector<ThreadWork> work(pool_.threads());
  std::vector<std::vector<HeadEss>> results(tasks.size());
  std::vector<absl::Status> statuses(tasks.size());
  std::atomic<bool> failed = false;
  const auto run_task = [&](int64_t index, ThreadWork& scratch) -> absl::Status {
    if (route == Route::kChannelWindows) {
      if (!scratch.channels) scratch.channels.emplace();
      ESS_ASSIGN_OR_RETURN(results[index],
                           ComputeChannels(op, tasks[index], positions, measures, options,
                                           *scratch.channels, cancellation));
      return absl::OkStatus();
    }
    if (route == Route::kTensorTree) {
      ESS_ASSIGN_OR_RETURN(results[index],
                           ComputeByTensors(op, tasks[index], positions, measures, options,
                                            options_.tensor_bytes, scratch.head, cancellation));
      return absl::OkStatus();
    }
    ESS_ASSIGN_OR_RETURN(results[index].emplace_back(),
                         CachedHead(op, tasks[index].front(), positions, measures, options, route,
                                    scratch.head, cancellation));
    return absl::OkStatus();
  };
  const auto compute = [&](int64_t index, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    statuses[index] = cancellation.Check();
    if (statuses[index].ok()) {
      ESS_FAULT_POINT("ess");
      const SerialTorch serial;
      statuses[index] =
          CatchTorch("ESS of an operator", [&] { return run_task(index, work[thread]); });
    }
    if (!statuses[index].ok()) failed.store(true, std::memory_order_relaxed);
  };
  if (on_accelerator) {
    compute(0, 0);  // The device has the threads; the pool is free for others.
  } else {
    ESS_RETURN_IF_ERROR(pool_.ParallelFor(tasks.size(), compute, cancellation));
  }
  for (const absl::Status& status : statuses) ESS_RETURN_IF_ERROR(status);
  return Join(results, measures, options);
}

}  // namespace ess
