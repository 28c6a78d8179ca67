// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/channel_scan.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/channel_scan.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After foreach_target: they are compiled once per instruction set, too.
#include "server/linalg/channel_window.h"
#include "server/linalg/exponential-inl.h"
#include "server/linalg/exponentials.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// The work of WriteScanLanes where a group's vectors are this target's and all of its channels
// share their inputs and outputs; false elsewhere.
bool WriteSharedScan(std::span<const ScanChannel> channels, int64_t states, int64_t lanes,
                     int64_t first, int64_t count, double* a, double* b, double* c) {
  if (lanes != kLanes || states > kMaxStates || channels.empty()) return false;
  const ScanChannel& shared = channels.front();
  for (const ScanChannel& channel : channels) {
    if (channel.inputs != shared.inputs || channel.outputs != shared.outputs) return false;
  }
  HWY_ALIGN double rates[kMaxStates * kLanes];
  HWY_ALIGN double here[kLanes];
  std::fill_n(rates, states * kLanes, 0.0);
  std::fill_n(here, kLanes, 0.0);
  for (size_t lane = 0; lane < channels.size(); ++lane) {
    here[lane] = 1;
    for (int64_t n = 0; n < states; ++n) rates[n * kLanes + lane] = channels[lane].rates[n];
  }
  const Vec present = Entry(here, 0);
  const Float64 d;  // Stores are unaligned: callers may be.
  for (int64_t t = 0; t < count; ++t) {
    HWY_ALIGN double steps[kLanes] = {};
    for (size_t lane = 0; lane < channels.size(); ++lane) {
      steps[lane] = channels[lane].steps[first + t];
    }
    const Vec step = Entry(steps, 0);
    const double* inputs = shared.inputs + (first + t) * states;
    const double* outputs = shared.outputs + (first + t) * states;
    for (int64_t n = 0; n < states; ++n) {
      const int64_t entry = (t * states + n) * kLanes;
      hn::StoreU(Exponential(hn::Mul(step, Entry(rates, n))), d, a + entry);
      hn::StoreU(hn::Mul(step, Broadcast(inputs[n])), d, b + entry);
      hn::StoreU(hn::Mul(present, Broadcast(outputs[n])), d, c + entry);
    }
  }
  return true;
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(WriteSharedScan);
}  // namespace

void WriteScanLanes(std::span<const ScanChannel> channels, int64_t states, int64_t lanes,
                    int64_t first, int64_t count, double* a, double* b, double* c) {
  if (HWY_DYNAMIC_DISPATCH(WriteSharedScan)(channels, states, lanes, first, count, a, b, c)) {
    return;
  }
  const int64_t entries = count * states * lanes;
  std::fill_n(a, entries, 0.0);  // exp(0) = 1.
  std::fill_n(b, entries, 0.0);
  std::fill_n(c, entries, 0.0);
  for (size_t lane = 0; lane < channels.size(); ++lane) {
    const ScanChannel& channel = channels[lane];
    for (int64_t t = 0; t < count; ++t) {
      const double step = channel.steps[first + t];
      for (int64_t n = 0; n < states; ++n) {
        const int64_t source = (first + t) * states + n;
        const int64_t entry = (t * states + n) * lanes + static_cast<int64_t>(lane);
        a[entry] = step * channel.rates[n];
        b[entry] = step * channel.inputs[source];
        c[entry] = channel.outputs[source];
      }
    }
  }
  ExponentiateInPlace({a, static_cast<size_t>(entries)});
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
