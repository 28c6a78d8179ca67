// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/selective_scan_run.h"

#include <cstddef>
#include <iterator>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/selective_scan_run.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::CappedTag<float, kScanGroup>;
using Vec = hn::Vec<Lanes>;

// x rounded to an integer by an addition that leaves it in the last bits of the sum.
constexpr float kRoundingShift = 0x1.8p23F;
// 2^x is a normal number between them.
constexpr float kSmallestExponent = -126;
constexpr float kLargestExponent = 127.5F;
// 2^r for |r| <= 1/2 to 3e-9, fitted at Chebyshev's points; the highest power first.
constexpr float kPowers[] = {0x1.446c7ep-13F,
                             0x1.5f48c8p-10F,
                             0x1.3b29d8p-7F,
                             0x1.c6aeccp-5F,
                             0x1.ebfbe0p-3F,
                             0x1.62e430p-1F,
                             1};

// 2^x to 2 units in the last place; 0 where that is below the normal numbers. NaN stays NaN.
HWY_INLINE Vec PowerOfTwo(Vec x) {
  const Lanes d;
  const hn::RebindToSigned<Lanes> di;
  const Vec shift = hn::Set(d, kRoundingShift);
  const Vec shifted = hn::Add(x, shift);
  const Vec rest = hn::Sub(x, hn::Sub(shifted, shift));
  Vec sum = hn::Set(d, kPowers[0]);
#pragma GCC unroll 8
  for (size_t k = 1; k < std::size(kPowers); ++k) {
    sum = hn::MulAdd(sum, rest, hn::Set(d, kPowers[k]));
  }
  const Vec power =
      hn::BitCast(d, hn::Add(hn::BitCast(di, sum), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  const Vec bounded = hn::IfThenElse(hn::Gt(x, hn::Set(d, kLargestExponent)),
                                     hn::Set(d, std::numeric_limits<float>::infinity()), power);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kSmallestExponent)), bounded);
}

void ScanGroupOnTarget(const SelectiveScanArrays& arrays, int64_t group, int64_t first,
                       int64_t end) {
  const Lanes d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = arrays.states;
  for (int64_t lane = 0; lane < kScanGroup; lane += lanes) {
    const float* rates = arrays.rates + group * states * kScanGroup + lane;
    float* memory = arrays.memory + group * states * kScanGroup + lane;
    for (int64_t t = first; t < end; ++t) {
      const int64_t place = (t * arrays.groups + group) * kScanGroup + lane;
      const float* B = arrays.B + t * states;
      const float* C = arrays.C + t * states;
      const Vec delta = hn::LoadU(d, arrays.delta + place);
      const Vec entering = hn::Mul(delta, hn::LoadU(d, arrays.x + place));
      Vec y = hn::Zero(d);
      for (int64_t n = 0; n < states; ++n) {
        const Vec gate = PowerOfTwo(hn::Mul(delta, hn::LoadU(d, rates + n * kScanGroup)));
        const Vec state = hn::MulAdd(gate, hn::LoadU(d, memory + n * kScanGroup),
                                     hn::Mul(entering, hn::Set(d, B[n])));
        hn::StoreU(state, d, memory + n * kScanGroup);
        y = hn::MulAdd(state, hn::Set(d, C[n]), y);
      }
      hn::StoreU(y, d, arrays.y + place);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(ScanGroupOnTarget);
}  // namespace

void ScanGroup(const SelectiveScanArrays& arrays, int64_t group, int64_t first, int64_t end) {
  HWY_DYNAMIC_DISPATCH(ScanGroupOnTarget)(arrays, group, first, end);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
