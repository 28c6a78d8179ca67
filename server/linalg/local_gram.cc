// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/local_gram.h"

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/local_gram.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/panel_factor-inl.h"
#include "server/linalg/row_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace {

// gram += x x^T
void AddSquare(const double* x, int64_t size, int64_t stride, double* gram) {
  for (int64_t i = 0; i < size; ++i) {
    if (x[i] != 0) AddScaledRow(x[i], x, gram + i * stride, size);
  }
}

// Makes x orthogonal to the first `count` vectors of the basis. Returns |x|^2.
double Orthogonalize(const double* basis, int64_t count, int64_t size, double* shares, double* x) {
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t k = 0; k < count; ++k) shares[k] = DotRow(basis + k * size, x, size);
    for (int64_t k = 0; k < count; ++k) AddScaledRow(-shares[k], basis + k * size, x, size);
  }
  return DotRow(x, x, size);
}

// product = gram x. Returns x . product.
double MultiplyGram(const double* gram, int64_t stride, int64_t size, const double* x,
                    double* product) {
  for (int64_t i = 0; i < size; ++i) product[i] = DotRow(gram + i * stride, x, size);
  return DotRow(x, product, size);
}

// x = sum of weights[k] times vector k.
void Combine(const double* basis, int64_t count, int64_t size, const double* weights, double* x) {
  std::fill_n(x, size, 0.0);
  for (int64_t k = 0; k < count; ++k) AddScaledRow(weights[k], basis + k * size, x, size);
}

// LDL^T of shift I - gram; *count becomes the number of its negative pivots.
TreeResult EliminateOnTarget(const double* gram, int64_t stride, int64_t size, double shift,
                             double* u, double* v, double* count, WorkMeter& meter) {
  const Panel panel{.pivots = size, .columns = 0, .u = u, .v = v};
  const Float64 d;
  for (int64_t strip = 0; strip < panel.strips(); ++strip) {
    const int64_t first = strip * kStrip;
    const int64_t width = panel.WidthOf(strip);
    double* to = panel.U(strip);
    for (int64_t row = 0; row < first + width; ++row, to += kStrip) {
      for (int64_t c = 0; c < width; c += kLanes) {
        hn::StoreU(hn::Neg(hn::LoadU(d, gram + row * stride + first + c)), d, to + c);
      }
      if (row >= first) to[row - first] += shift;
    }
  }
  HWY_ALIGN double growth[kBlock] = {};
  const PanelResult result = FactorPanel(panel, PivotSum::kNegative, growth, meter);
  *count = result.pivot_sum;
  return {.growth = *std::max_element(growth, growth + kBlock),
          .singular_pivot = result.singular_pivot};
}

}  // namespace
}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(AddSquare);
HWY_EXPORT(Orthogonalize);
HWY_EXPORT(MultiplyGram);
HWY_EXPORT(Combine);
HWY_EXPORT(EliminateOnTarget);

// Norms may grow or shrink by so much before all is scaled anew; their fourth powers stay in range.
constexpr double kLargestChange = 0x1p100;
constexpr int64_t kMaxSteps = 300;
constexpr int64_t kFirstCheck = 4;
constexpr int64_t kStepsBetweenChecks = 2;
// Of the eigenvalue, sigma_1^2: what is proved, and when it is worth trying to prove it.
constexpr double kAccuracy = 1e-11;
constexpr double kStandsStill = 1e-12;
// A vector this small beside the largest eigenvalue is rounding error.
constexpr double kRounding = 1e-15;
// Share of noise in a starting vector; it brings in what the last position did not have.
constexpr double kNoise = 1e-2;

double PowerOfTwoNear(double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, exponent);
}

}  // namespace

LocalGram::LocalGram(const LocalMatrix& matrix)
    : matrix_(matrix),
      size_(Arena::Rounded(std::max(matrix.sinks() + matrix.memory(), int64_t{1}))),
      stride_(StrideFor(size_)),
      max_steps_(std::min(size_, kMaxSteps)) {
  const int64_t square = size_ * stride_;
  const int64_t basis = (max_steps_ + 1) * size_;
  const int64_t panel = StripCount(size_) * kStrip * size_;
  arena_.Reserve(square + 2 * size_ + basis + Arena::Rounded(max_steps_) + 2 * panel);
  allocated_.emplace(arena_);
  gram_ = arena_.Allocate(square);
  row_ = arena_.Allocate(size_);
  vector_ = arena_.Allocate(size_);
  basis_ = arena_.Allocate(basis);
  shares_ = arena_.Allocate(max_steps_);
  panel_u_ = arena_.Allocate(panel);
  panel_v_ = arena_.Allocate(panel);
}

// A column that leaves the band makes room for the one that enters.
int64_t LocalGram::SlotOf(int64_t column) const {
  return column < matrix_.sinks() ? column : matrix_.sinks() + column % matrix_.memory();
}

void LocalGram::AddRow(int64_t row, int64_t end_column) {
  std::fill_n(row_, size_, 0.0);
  const int64_t sinks = std::min(matrix_.sinks(), end_column);
  for (int64_t column = 0; column < sinks; ++column) {
    row_[column] = scale_ * matrix_.SinkRow(row)[column];
  }
  const double* band = matrix_.BandRow(row);
  const int64_t first_column = row - matrix_.memory();
  for (int64_t column = std::max(first_column, matrix_.sinks()); column < end_column; ++column) {
    row_[SlotOf(column)] = scale_ * band[column - first_column];
  }
  HWY_DYNAMIC_DISPATCH(AddSquare)(row_, size_, stride_, gram_);
}

void LocalGram::Forget(int64_t column) {
  if (column >= matrix_.sinks() && matrix_.memory() == 0) return;
  const int64_t slot = SlotOf(column);
  std::fill_n(gram_ + slot * stride_, size_, 0.0);
  for (int64_t i = 0; i < size_; ++i) gram_[i * stride_ + slot] = 0;
  vector_[slot] = 0;
}

absl::Status LocalGram::Build(int64_t position, double norm,
                              const CancellationToken& cancellation) {
  scale_ = 1 / PowerOfTwoNear(norm);
  noise_ = static_cast<uint64_t>(position);
  std::fill_n(gram_, size_ * stride_, 0.0);
  std::fill_n(vector_, size_, 0.0);
  const int64_t row_end = matrix_.RowEnd(position);
  const std::vector<double> sink_gram = matrix_.SinkGram(row_end, scale_);
  const int64_t sinks = std::min(matrix_.sinks(), position);
  for (int64_t i = 0; i < sinks; ++i) {
    std::copy_n(sink_gram.data() + i * matrix_.sinks(), sinks, gram_ + i * stride_);
  }
  for (int64_t row = row_end - 1; row >= position; --row) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    AddRow(row, position);
  }
  return absl::OkStatus();
}

absl::Status LocalGram::MoveTo(int64_t position, double norm,
                               const CancellationToken& cancellation) {
  ESS_CHECK(position >= 1 && position < matrix_.length() && norm > 0);
  const double change = norm * scale_;
  const bool next = position == position_ - 1;
  position_ = -1;
  if (next && change < kLargestChange && change > 1 / kLargestChange) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    Forget(position);
    AddRow(position, position);
  } else {
    ESS_RETURN_IF_ERROR(Build(position, norm, cancellation));
  }
  position_ = position;
  return absl::OkStatus();
}

// In [-1, 1]; the same sequence for the same positions.
double LocalGram::Noise() {
  noise_ = noise_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<double>(static_cast<int64_t>(noise_) >> 11) * 0x1p-52;
}

void LocalGram::StartLanczos() {
  tridiagonal_.diagonal.clear();
  tridiagonal_.below.clear();
  double square = 0;
  for (int64_t i = 0; i < size_; ++i) square += vector_[i] * vector_[i];
  const double share = square > 0 ? kNoise * std::sqrt(square / static_cast<double>(size_)) : 1;
  double* start = basis_;
  for (int64_t i = 0; i < size_; ++i) start[i] = vector_[i] + share * Noise();
  square = 0;
  for (int64_t i = 0; i < size_; ++i) square += start[i] * start[i];
  for (int64_t i = 0; i < size_; ++i) start[i] /= std::sqrt(square);
}

void LocalGram::ExtendBasis() {
  std::vector<double>& diagonal = tridiagonal_.diagonal;
  if (!diagonal.empty()) tridiagonal_.below.push_back(coupling_);
  const int64_t count = static_cast<int64_t>(diagonal.size()) + 1;
  double* next = basis_ + count * size_;
  diagonal.push_back(HWY_DYNAMIC_DISPATCH(MultiplyGram)(gram_, stride_, size_,
                                                        basis_ + (count - 1) * size_, next));
  double square = HWY_DYNAMIC_DISPATCH(Orthogonalize)(basis_, count, size_, shares_, next);
  coupling_ = std::sqrt(square);
  if (coupling_ <= kRounding * *std::max_element(diagonal.begin(), diagonal.end())) {
    // The basis spans a space of its own; go on in what is left.
    coupling_ = 0;
    if (count == size_) return;
    for (int64_t i = 0; i < size_; ++i) next[i] = Noise();
    square = HWY_DYNAMIC_DISPATCH(Orthogonalize)(basis_, count, size_, shares_, next);
  }
  const double norm = std::sqrt(square);
  for (int64_t i = 0; i < size_; ++i) next[i] /= norm;
}

void LocalGram::KeepVector(double eigenvalue) {
  const std::vector<double> weights = tridiagonal_.TopEigenvector(eigenvalue);
  HWY_DYNAMIC_DISPATCH(Combine)
  (basis_, static_cast<int64_t>(weights.size()), size_, weights.data(), vector_);
}

absl::StatusOr<double> LocalGram::SpectralNorm(const CancellationToken& cancellation) {
  ESS_CHECK(position_ >= 1);
  StartLanczos();
  double eigenvalue = 0;
  int64_t next_check = kFirstCheck;
  for (int64_t step = 1; step <= max_steps_; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ExtendBasis();
    const bool complete = coupling_ == 0 || step == max_steps_;
    if (step < next_check && !complete) continue;
    const double before = eigenvalue;
    eigenvalue = tridiagonal_.LargestEigenvalue();
    next_check = step + kStepsBetweenChecks;
    if (eigenvalue > before * (1 + kStandsStill) && !complete) continue;
    ESS_ASSIGN_OR_RETURN(const bool proved, AllBelow(eigenvalue * (1 + kAccuracy), cancellation));
    if (proved) {
      KeepVector(eigenvalue);
      return std::sqrt(eigenvalue) / scale_;
    }
  }
  ESS_ASSIGN_OR_RETURN(eigenvalue, Bisect(eigenvalue, cancellation));
  return std::sqrt(eigenvalue) / scale_;
}

absl::StatusOr<double> LocalGram::Bisect(double low, const CancellationToken& cancellation) {
  double high = 0;
  for (int64_t i = 0; i < size_; ++i) high += gram_[i * stride_ + i];
  while (high > low * (1 + kAccuracy)) {
    const double middle = low + (high - low) / 2;
    ESS_ASSIGN_OR_RETURN(const bool below, AllBelow(middle, cancellation));
    (below ? high : low) = middle;
  }
  return low;
}

absl::StatusOr<bool> LocalGram::AllBelow(double shift, const CancellationToken& cancellation) {
  double count = 0;
  ESS_ASSIGN_OR_RETURN(const TreeResult result, Eliminate(shift, &count, cancellation));
  return count == 0 && !result.singular_pivot;
}

absl::StatusOr<BlockCounts> LocalGram::CountAbove(double tau, double spectral_norm,
                                                  const CancellationToken& cancellation) {
  ESS_CHECK(position_ >= 1 && tau > 0);
  double count = 0;
  return CountWithNudges(tau * scale_, spectral_norm * scale_, {&count, 1},
                         [&](double nudged_tau) -> absl::StatusOr<TreeResult> {
                           ESS_ASSIGN_OR_RETURN(
                               TreeResult result,
                               Eliminate(nudged_tau * nudged_tau, &count, cancellation));
                           result.growth /= nudged_tau;
                           return result;
                         });
}

absl::StatusOr<TreeResult> LocalGram::Eliminate(double shift, double* count,
                                                const CancellationToken& cancellation) {
  WorkMeter meter(cancellation);
  const TreeResult result = HWY_DYNAMIC_DISPATCH(EliminateOnTarget)(
      gram_, stride_, size_, shift, panel_u_, panel_v_, count, meter);
  if (!meter.status().ok()) return meter.status();
  return result;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
