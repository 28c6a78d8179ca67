// Channels of selective scans to test and race on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/linalg/channel_recurrence.h"

namespace ess::testing {

// Gates, inputs and outputs kept as they are. A value: change it, then use it.
class StoredChannels : public linalg::ChannelRecurrence {
 public:
  // a = 1, b = c = 0 everywhere.
  StoredChannels(int64_t length, int64_t states, int64_t channels, bool reads_before = false);

  int64_t channels() const override { return channels_; }
  int64_t length() const override { return length_; }
  int64_t states() const override { return states_; }
  bool reads_before() const override { return reads_before_; }
  void FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count, double* a, double* b,
                 double* c) const override;

  double& a(int64_t position, int64_t state, int64_t channel) {
    return a_[Index(position, state, channel)];
  }
  double& b(int64_t position, int64_t state, int64_t channel) {
    return b_[Index(position, state, channel)];
  }
  double& c(int64_t position, int64_t state, int64_t channel) {
    return c_[Index(position, state, channel)];
  }

  // T of one channel, row-major [L, L], by stepping every input's state through the scan.
  std::vector<double> Dense(int64_t channel) const;

 private:
  int64_t Index(int64_t position, int64_t state, int64_t channel) const {
    return (position * states_ + state) * channels_ + channel;
  }

  int64_t length_;
  int64_t states_;
  int64_t channels_;
  bool reads_before_;
  std::vector<double> a_, b_, c_;  // [L, N, D]
};

// Step sizes, and so gates exp(-step rate) and inputs step B, of a Mamba layer:
// "init":    steps softplus(normal - 4), rates 1 .. N;
// "trained": steps around a level of 0.001 to 0.1 of their channel, rates 1 .. N;
// "rand":    the same with rates log-uniform in [1, 16];
// "fast":    steps softplus(normal + 1): next to no memory;
// "mixed":   as init, with 2 % of the steps 20: resets.
std::vector<std::string> ScanKinds();

// B and C normal, shared by the channels.
StoredChannels MakeScan(const std::string& kind, int64_t length, int64_t states, int64_t channels,
                        uint64_t seed, bool reads_before = false);

// Scans that go to the borders of arithmetic: steps of 0, resets, silent rows, equal rates, copies
// (gates of 1, ties between all singular values), tiny and huge scales, no decay, rank 1 and 2,
// rates that wipe out half of the states at once.
struct HostileScan {
  std::string name;
  StoredChannels channels;
};
std::vector<HostileScan> HostileScans(int64_t length, int64_t states, int64_t channels,
                                      bool reads_before = false);

}  // namespace ess::testing
