// One group of channels of a recurrence in memory: its windows of 8 positions with the square-root
// forms of past and future at their borders.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "hwy/aligned_allocator.h"
#include "server/base/cancellation.h"
#include "server/linalg/channel_kernels.h"
#include "server/linalg/channel_recurrence.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Zeros at first; aligned as the kernels want it.
using LaneMemory = hwy::AlignedFreeUniquePtr<double[]>;
LaneMemory NewLaneMemory(int64_t size);

// Windows of at most `resident_bytes` are in memory, with N = 16 and 8 lanes 70 kB for every 8
// positions. A longer recurrence is cut into segments of that size, whose windows each pass makes
// again, from a triangle kept for either end of each. Thread-compatible.
class ChannelGroup {
 public:
  explicit ChannelGroup(int64_t resident_bytes)
      : resident_bytes_(resident_bytes), kernels_(BestChannelKernels()) {}

  // Reads channels [channel, channel + lanes); forgets those before. The recurrence stays as it is
  // until the next Load. REQUIRES: 1 <= N <= kMaxStates, L >= 1, finite numbers.
  // Errors: kCancelled, kDeadlineExceeded; nothing may be asked then until a Load succeeds.
  absl::Status Load(const ChannelRecurrence& recurrence, int64_t channel,
                    const CancellationToken& cancellation);

  // Calls visit(first position, window) for all windows, completely described, from the last to the
  // first. Costs little more than the visits when all windows are in memory and were visited
  // before.
  absl::Status ForEachWindow(absl::FunctionRef<void(int64_t, const ChannelWindow&)> visit,
                             WorkMeter& meter);

  // R_i L_i, whose singular values are those of H_i, as a triangle in `core`: for each lane at its
  // own position; 0 in lanes with position 0.
  absl::Status CoresAt(std::span<const int64_t> positions, double* core, WorkMeter& meter);

  // Gates, inputs and outputs of a window's positions, valid until the next call.
  WindowSource Source(int64_t first_position);

  const ChannelKernels& kernels() const { return kernels_; }
  const WindowLayout& layout() const { return layout_; }
  int64_t lanes() const { return kernels_.lanes; }
  int64_t length() const { return length_; }
  // min(N, i, L - i), the largest possible rank of H_i; 0 behind the end.
  int64_t RankBound(int64_t position) const {
    return std::max<int64_t>(0, std::min({layout_.states(), position, length_ - position}));
  }
  // Singular values in memory are the recurrence's times 2^-exponent of their lane.
  int exponent(int64_t lane) const { return input_exponent_[lane] + output_exponent_[lane]; }
  // Kernel scratch of layout().
  double* scratch() { return scratch_.get(); }

 private:
  void Allocate();
  // Divides lanes of extreme size by powers of two; false if there are none.
  bool NormalizeExtremeLanes();
  int64_t WindowsIn(int64_t segment) const;
  ChannelWindow WindowAt(int64_t slot) const {
    return layout_.At(windows_.get() + slot * layout_.WindowSize());
  }
  double* PastBorder(int64_t segment) const {
    return past_borders_.get() + segment * layout_.TriangleSize();
  }
  double* FutureBorder(int64_t segment) const {
    return future_borders_.get() + segment * layout_.TriangleSize();
  }
  absl::Status RunForward(WorkMeter& meter);
  // Fills what the past gives for the windows of a segment, and the past at its end.
  absl::Status MakeResident(int64_t segment, WorkMeter& meter);
  // Completes a window of the resident segment; those behind it are complete.
  void Describe(int64_t slot);
  absl::Status DescribeAll(WorkMeter& meter);
  // Puts the factors around a lane's position, and the window's part on either side of it, beside
  // those of other lanes.
  void GatherLane(int64_t lane, int64_t position);
  // Divides b and c of channels from `lane` on, `lanes` side by side, by their powers of two.
  void ScaleSource(int64_t lane, int64_t lanes, double* b, double* c) const;

  // One position per lane: factors at its window's ends, and the sources before and behind it.
  struct Gathered {
    LaneMemory past;
    LaneMemory future;
    LaneMemory sources[4];  // Gates and inputs before, gates and outputs behind.
    LaneMemory zeros;       // A source.
    LaneMemory window;
  };

  const int64_t resident_bytes_;
  const ChannelKernels& kernels_;
  WindowLayout layout_{1, 1};
  const ChannelRecurrence* recurrence_ = nullptr;
  int64_t channel_ = 0;
  int64_t length_ = 0;
  int64_t window_count_ = 0;
  int64_t segment_windows_ = 0;  // The last segment may have fewer.
  int64_t segment_count_ = 0;
  std::vector<int> input_exponent_;
  std::vector<int> output_exponent_;

  LaneMemory windows_;
  LaneMemory past_borders_;    // L at the start of each segment.
  LaneMemory future_borders_;  // R at the end of each segment.
  LaneMemory source_[3];
  LaneMemory largest_;
  LaneMemory scratch_;
  Gathered gathered_;

  int64_t resident_ = 0;      // Segment in memory.
  int64_t described_ = 0;     // Its windows from this slot on are complete.
  int64_t known_future_ = 0;  // Segments from this one on have their future border.
};

}  // namespace ess::linalg
