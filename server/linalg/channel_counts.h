// Counts of singular values at 8 positions of a group of channels, by elimination where its pivots
// are stable and from bidiagonal forms where they are not.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/linalg/channel_forms.h"
#include "server/linalg/channel_group.h"
#include "server/linalg/channel_window.h"

namespace ess::linalg {

// Thread-compatible.
class ChannelCounter {
 public:
  ChannelCounter(ChannelGroup& group, ChannelForms& forms) : group_(group), forms_(forms) {}

  // To be called after each Load of the group.
  void Reset();

  // counts [8, lanes] = N_i(taus[lane]) for i from first_position on. `taus` [lanes] >= 0 in the
  // units of the group. REQUIRES: `window` is complete.
  void Count(int64_t first_position, const ChannelWindow& window, std::span<const double> taus,
             double* counts);

  // Windows, times calls of Count, in which some lane needed bidiagonal forms.
  int64_t recounted_windows() const { return recounted_windows_; }
  int64_t memory_bytes() const {
    return BytesOf({&inverse_taus_, &growth_, &thresholds_, &position_counts_});
  }

 private:
  ChannelGroup& group_;
  ChannelForms& forms_;
  LaneMemory inverse_taus_;
  LaneMemory growth_;
  LaneMemory thresholds_;
  LaneMemory position_counts_;
  std::vector<uint8_t> recount_;  // [lanes]
  int64_t recounted_windows_ = 0;
};

}  // namespace ess::linalg
