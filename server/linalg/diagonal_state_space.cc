// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/diagonal_state_space.h"

#include <algorithm>

#include "server/base/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/diagonal_state_space.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// As many states as one register holds.
struct VectorStates {
  using Value = Vec;
  static constexpr int kStep = kLanes;
  static HWY_INLINE Vec Load(const double* x) { return hn::LoadU(Float64(), x); }
  static HWY_INLINE void Store(Vec value, double* x) { hn::StoreU(value, Float64(), x); }
  // sum + x y, state by state.
  static HWY_INLINE Vec AddProducts(Vec x, Vec y, Vec sum) { return hn::MulAdd(x, y, sum); }
};

// What a gate does to states; complex ones are pairs (re, im).
struct RealStates : VectorStates {
  static constexpr bool kPairs = false;
  static HWY_INLINE Vec Times(Vec x, Vec gate) { return hn::Mul(x, gate); }
  static HWY_INLINE Vec TimesConjugate(Vec x, Vec gate) { return hn::Mul(x, gate); }
};

#if HWY_TARGET == HWY_SCALAR
// One lane does not hold a pair.
struct ComplexStates {
  static constexpr bool kPairs = true;
  struct Value {
    double re;
    double im;
  };
  static constexpr int kStep = 2;
  static HWY_INLINE Value Load(const double* x) { return {x[0], x[1]}; }
  static HWY_INLINE void Store(Value value, double* x) {
    x[0] = value.re;
    x[1] = value.im;
  }
  static HWY_INLINE Vec AddProducts(Value x, Value y, Vec sum) {
    return hn::Add(sum, hn::Set(Float64(), x.re * y.re + x.im * y.im));
  }
  static HWY_INLINE Value Times(Value x, Value gate) {
    return {x.re * gate.re - x.im * gate.im, x.im * gate.re + x.re * gate.im};
  }
  static HWY_INLINE Value TimesConjugate(Value x, Value gate) {
    return Times(x, {gate.re, -gate.im});
  }
};
#else
struct ComplexStates : VectorStates {
  static constexpr bool kPairs = true;
  static HWY_INLINE Vec Times(Vec x, Vec gate) {
    const Vec straight = hn::Mul(x, hn::DupEven(gate));
    const Vec crossed = hn::Mul(hn::Reverse2(Float64(), x), hn::DupOdd(gate));
    return hn::OddEven(hn::Add(straight, crossed), hn::Sub(straight, crossed));
  }
  static HWY_INLINE Vec TimesConjugate(Vec x, Vec gate) {
    const Vec straight = hn::Mul(x, hn::DupEven(gate));
    const Vec crossed = hn::Mul(hn::Reverse2(Float64(), x), hn::DupOdd(gate));
    return hn::OddEven(hn::Sub(straight, crossed), hn::Add(straight, crossed));
  }
};
#endif

HWY_INLINE void MultiplyRow(const double* x, const double* y, int64_t count, double* out) {
  const Float64 d;
  for (int64_t n = 0; n < count; n += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + n), hn::LoadU(d, y + n)), d, out + n);
  }
}

// Output rows c_r times the gates of the rows from `first` to r (pre-read: to r - 1), and `decay`,
// the product of all gates. Of complex states: the conjugates of all of these, as c is given, so
// that Re(c . h) is a product of real rows.
template <class States>
HWY_INLINE void DecayOutputs(const DiagonalRows& rows, int64_t first, int64_t last, int64_t states,
                             bool reads_before, double* decay, double* out) {
  using Value = typename States::Value;
  for (int64_t n = 0; n < states; ++n) decay[n] = States::kPairs && n % 2 == 1 ? 0 : 1;
  for (int64_t r = first; r < last; ++r, out += states) {
    for (int64_t n = 0; n < states; n += States::kStep) {
      const Value before = States::Load(decay + n);
      const Value after = States::TimesConjugate(before, States::Load(rows.a + r * states + n));
      const Value read = States::Load(rows.c + r * states + n);
      States::Store(States::Times(read, reads_before ? before : after), out + n);
      States::Store(after, decay + n);
    }
  }
}

// The triangle of T_x inside 8 rows from `first` on, and `aged` [8, P]: their inputs decayed to the
// last of them.
template <class States>
HWY_INLINE void FillDiagonalBlock(const DiagonalRows& rows, int64_t first, int64_t states,
                                  bool reads_before, double* inside, int64_t stride, double* aged) {
  using Value = typename States::Value;
  const Float64 d;
  Vec sums[kBlock * (kBlock - 1) / 2];
  for (Vec& sum : sums) sum = hn::Zero(d);
  for (int64_t n = 0; n < states; n += States::kStep) {
    const double* a = rows.a + first * states + n;
    const double* b = rows.b + first * states + n;
    const double* c = rows.c + first * states + n;
    int entry = 0;
#pragma GCC unroll 8
    for (int j = 0; j < kBlock; ++j) {
      Value x = States::Load(b + j * states);
#pragma GCC unroll 8
      for (int r = j + 1; r < kBlock; ++r, ++entry) {
        const Value decayed = States::Times(x, States::Load(a + r * states));
        const Value seen = reads_before ? x : decayed;
        sums[entry] = States::AddProducts(seen, States::Load(c + r * states), sums[entry]);
        x = decayed;
      }
      States::Store(x, aged + j * states + n);
    }
  }
  int entry = 0;
  for (int j = 0; j < kBlock; ++j) {
    for (int r = j + 1; r < kBlock; ++r, ++entry) {
      inside[(first + r) * stride + first + j] = hn::GetLane(hn::SumOfLanes(d, sums[entry]));
    }
  }
}

// Rows of inputs [P, columns] in a strip, times the gates whose product (conjugate) is `decay`.
template <class States>
HWY_INLINE void DecayInputs(const double* decay, int64_t states, int64_t columns, double* strip) {
  const Float64 d;
  for (int64_t n = 0; n < states; n += 2) {
    double* first = strip + n * kStrip;
    double* second = first + kStrip;
    const Vec x = hn::Set(d, decay[n]);
    const Vec y = hn::Set(d, decay[n + 1]);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const Vec re = hn::LoadU(d, first + c);
      const Vec im = hn::LoadU(d, second + c);
      if constexpr (States::kPairs) {
        hn::StoreU(hn::MulAdd(y, im, hn::Mul(x, re)), d, first + c);
        hn::StoreU(hn::NegMulAdd(y, re, hn::Mul(x, im)), d, second + c);
      } else {
        hn::StoreU(hn::Mul(x, re), d, first + c);
        hn::StoreU(hn::Mul(y, im), d, second + c);
      }
    }
  }
}

// Blocks of 8 rows: their products with what came before are one matrix product, of the outputs
// decayed since the block's start and the inputs decayed up to it.
template <class States>
HWY_INLINE void FillVectorGate(const DiagonalRows& rows, int64_t width, int64_t states,
                               bool reads_before, StateWindow& window) {
  const ArenaScope scope(window.scratch);
  DecayOutputs<States>(rows, 0, width, states, reads_before, window.transition.data(),
                       window.output.data());
  double* decay = window.scratch.Allocate(states);
  double* outputs = window.scratch.Allocate(kBlock * states);                     // [8, P]
  double* aged = window.scratch.Allocate(kBlock * states);                        // [8, P]
  double* lhs = window.scratch.Allocate(kBlock * states);                         // [P, 8]
  double* inputs = window.scratch.Allocate(StripCount(width) * kStrip * states);  // [P, W]
  for (int64_t first = 0; first < width; first += kBlock) {
    DecayOutputs<States>(rows, first, first + kBlock, states, reads_before, decay, outputs);
    for (int64_t n = 0; n < states; n += kBlock) {
      TransposeBlock(outputs + n, states, lhs + n * kBlock, kBlock);
    }
    for (int64_t column = 0; column < first; column += kStrip) {
      const int64_t columns = std::min(kStrip, first - column);
      double* strip = inputs + column * states;
      SubtractProduct<kBlock>(states, lhs, strip, {}, window.inside.data() + first * width + column,
                              width, columns, -1.0);
      DecayInputs<States>(decay, states, columns, strip);
    }
    FillDiagonalBlock<States>(rows, first, states, reads_before, window.inside.data(), width, aged);
    double* block = inputs + first / kStrip * kStrip * states + first % kStrip;
    for (int64_t n = 0; n < states; n += kBlock) {
      TransposeBlock(aged + n, states, block + n * kStrip, kStrip);
    }
  }
  for (int64_t column = 0; column < width; column += kBlock) {
    for (int64_t n = 0; n < states; ++n) {
      const double* from = inputs + (column / kStrip * states + n) * kStrip + column % kStrip;
      std::copy_n(from, kBlock, window.input.data() + n * width + column);
    }
  }
}

void FillVectorGateOnTarget(const DiagonalRows& rows, int64_t width, int64_t states,
                            bool reads_before, StateWindow& window) {
  FillVectorGate<RealStates>(rows, width, states, reads_before, window);
}

void FillComplexGateOnTarget(const DiagonalRows& rows, int64_t width, int64_t states,
                             bool reads_before, StateWindow& window) {
  FillVectorGate<ComplexStates>(rows, width, states, reads_before, window);
  for (int64_t n = 1; n < states; n += 2) window.transition[n] = -window.transition[n];
}

// One gate for all states: T_x is c b^T times products of gates.
void FillScalarGateOnTarget(const DiagonalRows& rows, int64_t width, int64_t states,
                            bool reads_before, StateWindow& window) {
  const Float64 d;
  const ArenaScope scope(window.scratch);
  const int64_t size = StripCount(width) * kStrip * states;
  double* decay = window.scratch.Allocate(width);
  double* aged = window.scratch.Allocate(width * states);  // [W, P]
  double* lhs = window.scratch.Allocate(size);             // [P, W] in strips.
  double* rhs = window.scratch.Allocate(size);             // [P, W] in strips.
  PackTransposed({rows.c, states}, states, width, false, lhs);
  PackTransposed({rows.b, states}, states, width, false, rhs);
  const CancellationToken never;
  WorkMeter unlimited(never);
  UpdateLower<kStrip>(states, width, {{lhs, rhs, {}, window.inside.data(), width, -1.0}},
                      unlimited);
  double product = 1;
  std::fill_n(decay, width, 0.0);
  for (int64_t r = 0; r < width; ++r) {
    double* inside = window.inside.data() + r * width;
    const int64_t end = r / kBlock * kBlock + kBlock;
    if (reads_before) MultiplyRow(inside, decay, end, inside);
    const Vec gate = hn::Set(d, rows.a[r]);
    for (int64_t j = 0; j < end; j += kLanes) {
      hn::StoreU(hn::Mul(gate, hn::LoadU(d, decay + j)), d, decay + j);
    }
    if (!reads_before) MultiplyRow(inside, decay, end, inside);
    decay[r] = 1;

    const double before = product;
    product *= rows.a[r];
    const Vec share = hn::Set(d, reads_before ? before : product);
    for (int64_t n = 0; n < states; n += kLanes) {
      hn::StoreU(hn::Mul(share, hn::LoadU(d, rows.c + r * states + n)), d,
                 window.output.data() + r * states + n);
    }
  }
  std::fill(window.transition.begin(), window.transition.end(), product);
  for (int64_t j = 0; j < width; ++j) {
    const Vec share = hn::Set(d, decay[j]);
    for (int64_t n = 0; n < states; n += kLanes) {
      hn::StoreU(hn::Mul(share, hn::LoadU(d, rows.b + j * states + n)), d, aged + j * states + n);
    }
  }
  for (int64_t n = 0; n < states; n += kBlock) {
    for (int64_t j = 0; j < width; j += kBlock) {
      TransposeBlock(aged + j * states + n, states, window.input.data() + n * width + j, width);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(FillVectorGateOnTarget);
HWY_EXPORT(FillComplexGateOnTarget);
HWY_EXPORT(FillScalarGateOnTarget);

int64_t DiagonalScratch(int64_t padded_states, int64_t width) {
  const int64_t strips = StripCount(width) * kStrip * padded_states;
  return 4 * width * padded_states + 2 * width + padded_states +
         std::max(3 * kBlock * padded_states, width) + 2 * strips;
}

}  // namespace

void DiagonalStateSpace::FillWindow(int64_t first, int64_t width, StateWindow& window) const {
  const int64_t N = factors_.states;
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, factors_.length - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  window.Resize(P, P, W);
  Arena& arena = window.scratch;
  arena.Reserve(DiagonalScratch(P, W));
  const ArenaScope scope(arena);
  const int64_t gates = factors_.scalar_gate ? 1 : N;
  const int64_t padded_gates = factors_.scalar_gate ? 1 : P;
  const DiagonalRows rows = {
      .a = PaddedRows(factors_.a, first, count, gates, W, padded_gates, 1, arena),
      .b = PaddedRows(factors_.b, first, count, N, W, P, 0, arena),
      .c = PaddedRows(factors_.c, first, count, N, W, P, 0, arena)};
  if (factors_.scalar_gate) {
    HWY_DYNAMIC_DISPATCH(FillScalarGateOnTarget)(rows, W, P, factors_.reads_before, window);
  } else {
    HWY_DYNAMIC_DISPATCH(FillVectorGateOnTarget)(rows, W, P, factors_.reads_before, window);
  }
}

void ComplexDiagonalStateSpace::FillWindow(int64_t first, int64_t width,
                                           StateWindow& window) const {
  const int64_t N = states();
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, factors_.length - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  window.Resize(P, P, W);
  Arena& arena = window.scratch;
  arena.Reserve(DiagonalScratch(P, W));
  const ArenaScope scope(arena);
  double* a = arena.Allocate(W * P);
  double* c = arena.Allocate(W * P);
  std::fill_n(c, W * P, 0.0);
  for (int64_t t = 0; t < W; ++t) {
    for (int64_t n = 0; n < P; n += 2) {
      const bool inside = t < count && n < N;
      const double* gate =
          factors_.a + (factors_.scalar_gate ? 2 * (first + t) : (first + t) * N + n);
      a[t * P + n] = inside ? gate[0] : 1;
      a[t * P + n + 1] = inside ? gate[1] : 0;
      if (!inside) continue;
      c[t * P + n] = factors_.c[(first + t) * N + n];
      c[t * P + n + 1] = -factors_.c[(first + t) * N + n + 1];
    }
  }
  HWY_DYNAMIC_DISPATCH(FillComplexGateOnTarget)
  ({.a = a, .b = PaddedRows(factors_.b, first, count, N, W, P, 0, arena), .c = c}, W, P,
   factors_.reads_before, window);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
