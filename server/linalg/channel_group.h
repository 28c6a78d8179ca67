// One group of channels of a recurrence: the square-root forms of past and future at the borders of
// its windows of 8 positions, and the windows themselves one after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/channel_kernels.h"
#include "server/linalg/channel_recurrence.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_memory.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Two triangles for each window, 20 kB with N = 16 and 8 lanes, and at most `factor_bytes` in all.
// A longer recurrence is cut into segments of that size, whose triangles each pass makes again.
// Everything else of a window is made when it is visited, in memory that all windows share: that is
// cheaper than to fetch it from beyond the caches. Thread-compatible.
class ChannelGroup {
 public:
  explicit ChannelGroup(int64_t factor_bytes)
      : factor_bytes_(factor_bytes), kernels_(BestChannelKernels()) {}

  // Reads channels [channel, channel + lanes); forgets those before. The recurrence stays as it is
  // until the next Load. REQUIRES: 1 <= N <= kMaxStates, L >= 1, finite numbers.
  // Errors: kCancelled, kDeadlineExceeded; nothing may be asked then until a Load succeeds.
  absl::Status Load(const ChannelRecurrence& recurrence, int64_t channel,
                    const CancellationToken& cancellation);

  enum class Detail { kFactors, kDescription };  // kFactors: past and future alone.

  // Calls visit(first position, window) for the windows that are wanted, from the last to the
  // first. The window and CurrentSource() are there until the visit ends.
  absl::Status ForEachWindow(Detail detail, absl::FunctionRef<bool(int64_t)> wanted,
                             absl::FunctionRef<void(int64_t, const ChannelWindow&)> visit,
                             WorkMeter& meter);

  // R_i L_i, whose singular values are those of H_i, as a triangle in `core`: for each lane at its
  // own position; 0 in lanes with position 0.
  absl::Status CoresAt(std::span<const int64_t> positions, double* core, WorkMeter& meter);

  // Gates, inputs and outputs of the window that is visited.
  WindowSource CurrentSource() const;

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
  // Of everything that is kept between calls.
  int64_t memory_bytes() const;

 private:
  void Allocate();
  // Divides lanes of extreme size by powers of two; false if there are none.
  bool NormalizeExtremeLanes();
  int64_t WindowsIn(int64_t segment) const;
  int64_t SegmentOf(int64_t position) const { return position / kWindow / segment_windows_; }
  double* Triangle(const LaneMemory& triangles, int64_t index) const {
    return triangles.get() + index * layout_.TriangleSize();
  }
  void CopyTriangle(const double* from, double* to) const;
  // Divides b and c of channels from `lane` on, `lanes` side by side, by their powers of two.
  void ScaleSource(int64_t lane, int64_t lanes, double* b, double* c) const;
  // Fills CurrentSource().
  void ReadSource(int64_t first_position);
  // The window at `slot` of the resident segment, with nothing in it but its factors.
  ChannelWindow WindowAt(int64_t slot) const;

  absl::Status RunForward(WorkMeter& meter);
  // The pasts of the segment's windows, and the one at its end.
  absl::Status MakeResident(int64_t segment, WorkMeter& meter);
  bool FutureIsKnownBefore(int64_t slot) const;
  // The future at the start of a window that is read.
  void MoveFuture(int64_t slot, const ChannelWindow& window);
  absl::Status ForEachWindowOf(int64_t segment, Detail detail,
                               absl::FunctionRef<bool(int64_t)> wanted,
                               absl::FunctionRef<void(int64_t, const ChannelWindow&)> visit,
                               WorkMeter& meter);
  // Makes the segment resident, with the futures of its windows.
  absl::Status MakeFutures(int64_t segment, WorkMeter& meter);
  // Puts the factors around a lane's position, and the window's part on either side of it, beside
  // those of other lanes.
  void GatherLane(int64_t lane, int64_t position);

  // One position per lane: factors at its window's ends, and the sources before and behind it.
  struct Gathered {
    LaneMemory past;
    LaneMemory future;
    LaneMemory sources[4];  // Gates and inputs before, gates and outputs behind.
    LaneMemory zeros;       // A source.
  };

  const int64_t factor_bytes_;
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

  LaneMemory pasts_;           // L at the start of each window of the resident segment.
  LaneMemory futures_;         // R at the end of each window of the resident segment.
  LaneMemory past_borders_;    // L at the start of each segment.
  LaneMemory future_borders_;  // R at the end of each segment.
  LaneMemory window_;
  LaneMemory source_[3];
  LaneMemory largest_;
  LaneMemory scratch_;
  Gathered gathered_;

  int64_t resident_ = 0;      // Segment in memory.
  int64_t known_slot_ = 0;    // Its futures from this slot on are known.
  int64_t known_border_ = 0;  // Segments from this one on have their future border.
};

}  // namespace ess::linalg
