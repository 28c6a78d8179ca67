// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/channel_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/channel_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/lane_bidiagonal-inl.h"
#include "server/linalg/lane_counts-inl.h"
#include "server/linalg/lane_descriptor-inl.h"
#include "server/linalg/lane_factors-inl.h"
#include "server/linalg/lane_spectrum-inl.h"
#include "server/linalg/lane_window-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

int64_t ScratchSize(const WindowLayout& layout) {
  const int64_t description = 2 * layout.TriangleSize() + layout.PositionsSize();
  const int64_t elimination = 2 * layout.tiles() * (layout.tiles() + 4) * kTileEntries * kLanes;
  const int64_t matrix = layout.padded_states() * layout.padded_states() * kLanes;
  return std::max({description, elimination, matrix});
}

const ChannelKernels* KernelsOfTarget() {
  static constexpr ChannelKernels kKernels = {
      .lanes = kLanes,
      .read_window = &ReadWindow,
      .read_past = &ReadPast,
      .append_past = &AppendPositions<Factor::kPast>,
      .append_future = &AppendPositions<Factor::kFuture>,
      .append_past_position = &AppendPosition<Factor::kPast>,
      .append_future_position = &AppendPosition<Factor::kFuture>,
      .describe_window = &DescribeWindow,
      .bound_norms = &BoundNorms,
      .count_window = &CountWindow,
      .lower_product = &LowerProduct,
      .bidiagonalize = &BidiagonalizeLower,
      .count_singular_values = &CountSingularValues,
      .largest_singular_values = &LargestSingularValues,
      .entropies = &Entropies,
      .scratch_size = &ScratchSize,
  };
  return &kKernels;
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(KernelsOfTarget);

}  // namespace

const ChannelKernels& BestChannelKernels() { return *HWY_DYNAMIC_DISPATCH(KernelsOfTarget)(); }

}  // namespace ess::linalg
#endif  // HWY_ONCE
