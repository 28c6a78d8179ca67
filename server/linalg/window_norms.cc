// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/window_norms.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/status_macros.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/window_norms.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/tile_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// out [rows, 24] = in + scale lhs^T rhs for one strip of `columns`.
HWY_INLINE void MultiplyStrip(int64_t depth, const double* lhs, const double* rhs, int64_t rows,
                              int64_t columns, bool add, double* out) {
  for (int64_t row = 0; row < rows; row += kBlock) {
    double* tile = out + row * kStrip;
    SubtractProduct<kStrip>(depth, lhs + row / kStrip * kStrip * depth + row % kStrip, rhs,
                            add ? MatrixView{tile, kStrip} : MatrixView{}, tile, kStrip, columns,
                            -1.0);
  }
}

void MultiplyStripOnTarget(int64_t depth, const double* lhs, const double* rhs, int64_t rows,
                           int64_t columns, bool add, double* out) {
  MultiplyStrip(depth, lhs, rhs, rows, columns, add, out);
}

void PackOperandOnTarget(MatrixView matrix, int64_t rows, int64_t columns, bool transposed,
                         double* strips) {
  if (transposed) {
    PackTransposed(matrix, rows, columns, false, strips);
  } else {
    PackRows(matrix, rows, columns, strips);
  }
}

// sums[24] = the products of the columns of x and y [rows, 24].
void DotColumnsOnTarget(int64_t rows, const double* x, const double* y, double* sums) {
  const Float64 d;
  for (int64_t c = 0; c < kStrip; c += kLanes) {
    Vec even = hn::Zero(d);
    Vec odd = hn::Zero(d);
    for (int64_t row = 0; row < rows; row += 2) {
      const int64_t at = row * kStrip + c;
      even = hn::MulAdd(hn::LoadU(d, x + at), hn::LoadU(d, y + at), even);
      odd = hn::MulAdd(hn::LoadU(d, x + at + kStrip), hn::LoadU(d, y + at + kStrip), odd);
    }
    hn::StoreU(hn::Add(even, odd), d, sums + c);
  }
}

// out -= x diag(a) + y diag(b), [rows, 24].
void CombineColumnsOnTarget(int64_t rows, const double* x, const double* a, const double* y,
                            const double* b, double* out) {
  const Float64 d;
  for (int64_t c = 0; c < kStrip; c += kLanes) {
    const Vec share_x = hn::LoadU(d, a + c);
    const Vec share_y = hn::LoadU(d, b + c);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * kStrip + c;
      const Vec rest = hn::NegMulAdd(share_x, hn::LoadU(d, x + at), hn::LoadU(d, out + at));
      hn::StoreU(hn::NegMulAdd(share_y, hn::LoadU(d, y + at), rest), d, out + at);
    }
  }
}

void ScaleColumnsOnTarget(int64_t rows, const double* scale, double* x) {
  const Float64 d;
  for (int64_t c = 0; c < kStrip; c += kLanes) {
    const Vec factor = hn::LoadU(d, scale + c);
    for (int64_t row = 0; row < rows; ++row) {
      double* at = x + row * kStrip + c;
      hn::StoreU(hn::Mul(factor, hn::LoadU(d, at)), d, at);
    }
  }
}

// The largest eigenvalues of 24 tridiagonal matrices side by side, from the coefficients of Lanczos
// [steps][24]: Newton's method on the last pivot d_m(x) of x I - T, kept between bounds that the
// signs of all pivots give. `low` [24] is a lower bound, and takes the eigenvalue; `slopes` takes
// d_m'(x) = 1 / (last component of the eigenvector)^2.
void LargestRitzValuesOnTarget(int64_t steps, const double* diagonal, const double* squares,
                               double* low, double* slopes) {
  const Float64 d;
  constexpr int kIterations = 60;
  const Vec zero = hn::Zero(d);
  const Vec one = hn::Set(d, 1.0);
  for (int64_t c = 0; c < kStrip; c += kLanes) {
    Vec lower = hn::LoadU(d, low + c);
    Vec upper = lower;
    for (int64_t k = 0; k < steps; ++k) {
      Vec reach = hn::Abs(hn::LoadU(d, diagonal + k * kStrip + c));
      if (k > 0) {
        reach = hn::Add(reach, hn::Sqrt(hn::LoadU(d, squares + (k - 1) * kStrip + c)));
      }
      if (k + 1 < steps) {
        reach = hn::Add(reach, hn::Sqrt(hn::LoadU(d, squares + k * kStrip + c)));
      }
      upper = hn::Max(upper, reach);
    }
    Vec x = upper;
    Vec slope = one;
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      Vec pivot = hn::Sub(x, hn::LoadU(d, diagonal + c));
      slope = one;
      auto above = hn::Gt(pivot, zero);
      for (int64_t k = 1; k < steps; ++k) {
        const Vec inverse = hn::Div(one, pivot);
        const Vec ratio = hn::Mul(hn::LoadU(d, squares + (k - 1) * kStrip + c), inverse);
        slope = hn::MulAdd(hn::Mul(ratio, inverse), slope, one);
        pivot = hn::Sub(hn::Sub(x, hn::LoadU(d, diagonal + k * kStrip + c)), ratio);
        above = hn::And(above, hn::Gt(pivot, zero));
      }
      upper = hn::IfThenElse(above, x, upper);
      lower = hn::IfThenElse(above, lower, x);
      const Vec newton = hn::Sub(x, hn::Div(pivot, slope));
      const Vec middle = hn::Mul(hn::Set(d, 0.5), hn::Add(lower, upper));
      const auto inside = hn::And(hn::Gt(newton, lower), hn::Lt(newton, upper));
      const Vec next = hn::IfThenElse(inside, newton, middle);
      const auto still = hn::Le(hn::Abs(hn::Sub(next, x)), hn::Mul(hn::Set(d, 1e-15), hn::Abs(x)));
      if (hn::AllTrue(d, still)) break;
      x = next;
    }
    hn::StoreU(x, d, low + c);
    hn::StoreU(slope, d, slopes + c);
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(MultiplyStripOnTarget);
HWY_EXPORT(PackOperandOnTarget);
HWY_EXPORT(DotColumnsOnTarget);
HWY_EXPORT(CombineColumnsOnTarget);
HWY_EXPORT(ScaleColumnsOnTarget);
HWY_EXPORT(LargestRitzValuesOnTarget);

// A column is done when the residual of its Ritz value is below this share of it: the error of the
// value is about the square of that.
constexpr double kResidual = 3e-7;
constexpr int kMaxSteps = 400;
constexpr int kStepsBetweenChecks = 2;

using Columns = std::array<double, kStrip>;

// Uniform in [-0.5, 0.5); the same on every machine.
double NextRandom(uint64_t& state) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<double>(state >> 11) * 0x1p-53 - 0.5;
}

// Rows of beta that a position does not have, and rows of the window that it does not see.
void MaskColumns(int64_t first, int64_t columns, int64_t width, bool keep_before, double* x) {
  for (int64_t row = 0; row < width; ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      const bool before = row < first + c;
      if (before != keep_before) x[row * kStrip + c] = 0;
    }
  }
}

}  // namespace

int64_t WindowNorms::Scratch(int64_t padded_states, int64_t width) {
  const int64_t all = padded_states + width;
  const int64_t dense = all * all;
  return StripCount(all) * kStrip * (all + width) + StripCount(width) * kStrip * all +
         std::max(dense, (3 * all + width) * kStrip);
}

WindowNorms::WindowNorms(const RecurrentWindow& window, Arena& arena)
    : window_(window), arena_(arena) {
  const int64_t states = window.states;
  const int64_t width = window.width;
  const int64_t all = states + width;
  gram_ = arena.Allocate(StripCount(all) * kStrip * all);
  outputs_ = arena.Allocate(StripCount(width) * kStrip * all);
  inputs_ = arena.Allocate(StripCount(all) * kStrip * width);

  const ArenaScope scope(arena);
  double* matrix = arena.Allocate(all * all);
  const auto in_strips = [states](const double* strips, int64_t row, int64_t column) {
    return strips[(column / kStrip * states + row) * kStrip + column % kStrip];
  };
  for (int64_t row = 0; row < states; ++row) {
    for (int64_t column = row; column < states; ++column) {
      matrix[row * all + column] = matrix[column * all + row] =
          -in_strips(window.common.data(), row, column);
    }
    for (int64_t column = 0; column < width; ++column) {
      matrix[row * all + states + column] = matrix[(states + column) * all + row] =
          -in_strips(window.couplings(), row, column);
    }
  }
  for (int64_t row = 0; row < width; ++row) {
    for (int64_t column = 0; column <= row; ++column) {
      matrix[(states + row) * all + states + column] =
          matrix[(states + column) * all + states + row] =
              -window.columns[row * StrideFor(width) + column];
    }
  }
  const auto pack = HWY_DYNAMIC_DISPATCH(PackOperandOnTarget);
  pack({matrix, all}, all, all, false, gram_);
  for (int64_t row = 0; row < width; ++row) {
    for (int64_t state = 0; state < states; ++state) {
      matrix[row * all + state] = in_strips(window.outputs(), state, row);
    }
    std::copy_n(window.inside.data() + row * width, width, matrix + row * all + states);
  }
  pack({matrix, all}, width, all, false, inputs_);
  pack({matrix, all}, all, width, true, outputs_);
}

absl::Status WindowNorms::Fill(int64_t strip, std::span<double> norms,
                               const CancellationToken& cancellation) {
  const int64_t columns = positions(strip);
  ESS_CHECK(static_cast<int64_t>(norms.size()) == columns);
  const int64_t states = window_.states;
  const int64_t width = window_.width;
  const int64_t all = states + width;
  const int64_t first = strip * kStrip;
  const ArenaScope scope(arena_);
  double* previous = arena_.Allocate(all * kStrip);
  double* current = arena_.Allocate(all * kStrip);
  double* next = arena_.Allocate(all * kStrip);
  double* seen = arena_.Allocate(width * kStrip);
  for (double* vectors : {previous, current, next}) std::fill_n(vectors, all * kStrip, 0.0);
  uint64_t random = 1;
  for (int64_t row = 0; row < all; ++row) {
    for (int64_t c = 0; c < columns; ++c) current[row * kStrip + c] = NextRandom(random);
  }
  MaskColumns(first, columns, width, true, current + states * kStrip);

  Columns sums;
  Columns scales;
  const auto normalize = [&](double* vectors) {
    for (int64_t c = 0; c < kStrip; ++c) scales[c] = sums[c] > 0 ? 1 / std::sqrt(sums[c]) : 0;
    HWY_DYNAMIC_DISPATCH(ScaleColumnsOnTarget)(all, scales.data(), vectors);
  };
  HWY_DYNAMIC_DISPATCH(DotColumnsOnTarget)(all, current, current, sums.data());
  normalize(current);

  std::vector<double> diagonal;
  std::vector<double> squares;  // Of the entries beside the diagonal.
  Columns values{};
  Columns couplings{};
  std::array<bool, kStrip> done{};
  int64_t undone = 0;
  for (int64_t c = 0; c < columns; ++c) {
    const bool inside = first + c < window_.count;
    done[c] = !inside || !HasFullPrecision(window_, first + c);
    norms[c] = inside && window_.largest_square > 0 ? NAN : 0;
    undone += !done[c];
  }
  for (int step = 1; undone > 0 && step <= kMaxSteps; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const auto multiply = HWY_DYNAMIC_DISPATCH(MultiplyStripOnTarget);
    multiply(all, outputs_, current, width, columns, false, seen);
    MaskColumns(first, columns, width, false, seen);
    multiply(all, gram_, current, all, columns, false, next);
    multiply(width, inputs_, seen, all, columns, true, next);
    MaskColumns(first, columns, width, true, next + states * kStrip);

    HWY_DYNAMIC_DISPATCH(DotColumnsOnTarget)(all, current, next, sums.data());
    diagonal.insert(diagonal.end(), sums.begin(), sums.end());
    HWY_DYNAMIC_DISPATCH(CombineColumnsOnTarget)
    (all, current, sums.data(), previous, couplings.data(), next);
    HWY_DYNAMIC_DISPATCH(DotColumnsOnTarget)(all, next, next, sums.data());
    squares.insert(squares.end(), sums.begin(), sums.end());
    for (int64_t c = 0; c < kStrip; ++c) couplings[c] = std::sqrt(sums[c]);
    if (step % kStepsBetweenChecks == 0 || step == 1) {
      Columns slopes;
      Columns latest = values;
      HWY_DYNAMIC_DISPATCH(LargestRitzValuesOnTarget)
      (step, diagonal.data(), squares.data(), latest.data(), slopes.data());
      for (int64_t c = 0; c < columns; ++c) {
        if (done[c]) continue;
        values[c] = latest[c];
        if (couplings[c] > kResidual * values[c] * std::sqrt(slopes[c])) continue;
        done[c] = true;
        --undone;
        norms[c] = std::sqrt(std::max(values[c], 0.0));
      }
    }
    normalize(next);
    std::swap(previous, current);
    std::swap(current, next);
  }
  return absl::OkStatus();
}

absl::Status FillSpectralNorms(const RecurrentWindow& window, std::span<double> norms, Arena& arena,
                               const CancellationToken& cancellation) {
  const ArenaScope scope(arena);
  WindowNorms lanczos(window, arena);
  for (int64_t strip = 0; strip < lanczos.strips(); ++strip) {
    ESS_RETURN_IF_ERROR(
        lanczos.Fill(strip, norms.subspan(strip * kStrip, lanczos.positions(strip)), cancellation));
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
