// Many small diagonal recurrences side by side: the channels of a selective scan (Mamba, S6).
#pragma once

#include <cstdint>

namespace ess::linalg {

// h_t = a_t * h_{t-1} + b_t u_t, y_t = c_t . h_t (post-read) or c_t . h_{t-1} (pre-read), for each
// of D channels with N real states. Immutable.
class ChannelRecurrence {
 public:
  virtual ~ChannelRecurrence() = default;

  virtual int64_t channels() const = 0;  // D
  virtual int64_t length() const = 0;    // L
  virtual int64_t states() const = 0;    // N
  virtual bool reads_before() const = 0;

  // Writes a, b and c of channels [channel, channel + lanes) at positions [first, first + count),
  // each row-major [count, N, lanes]. Channels from D on and positions from L on: a = 1, b = c = 0.
  // Cost: O(count N lanes), with an exponential for each gate where the class keeps step sizes.
  virtual void FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count, double* a,
                         double* b, double* c) const = 0;
};

}  // namespace ess::linalg
