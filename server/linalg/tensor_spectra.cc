#include "server/linalg/tensor_spectra.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/serial_torch.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/tensor_chunk.h"
#include "server/linalg/tensor_counts.h"
#include "server/linalg/tensor_entropies.h"
#include "server/linalg/tensor_fractions.h"
#include "server/linalg/tensor_norms.h"

namespace ess::linalg {
namespace {

// The first entry of [H, L, L] on or below a diagonal that is not finite.
absl::Status NotFinite(const at::Tensor& matrices, std::span<const int64_t> heads) {
  const at::Tensor wrong = at::isfinite(matrices).logical_not().nonzero()[0].to(at::kCPU);
  const int64_t* const index = wrong.const_data_ptr<int64_t>();
  return absl::InternalError(fmt::format("operator of head {}: entry [{}, {}] is {}",
                                         heads[index[0]], index[1], index[2],
                                         matrices[index[0]][index[1]][index[2]].item<double>()));
}

double PowerOfTwoAbove(double largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::clamp(exponent, -1000, 1000));  // Its inverse is finite too.
}

std::vector<double> Multiplied(std::span<const double> numbers, double factor) {
  std::vector<double> result(numbers.begin(), numbers.end());
  for (double& number : result) number *= factor;
  return result;
}

}  // namespace

int64_t TensorSpectra::BytesNeeded(int64_t length) {
  return TensorTree::BytesOfHead(length) + TensorTree::BytesOfPair(length);
}

absl::StatusOr<TensorSpectra> TensorSpectra::Create(at::Tensor maps, int64_t byte_budget,
                                                    const CancellationToken& cancellation) {
  std::vector<int64_t> heads(maps.size(0));
  std::iota(heads.begin(), heads.end(), 0);
  return Create(std::move(maps), heads, byte_budget, cancellation);
}

absl::StatusOr<TensorSpectra> TensorSpectra::Create(at::Tensor maps, std::span<const int64_t> heads,
                                                    int64_t byte_budget,
                                                    const CancellationToken& cancellation) {
  ESS_CHECK(maps.dim() == 3 && maps.size(1) == maps.size(2) && maps.size(1) >= 1);
  ESS_CHECK(maps.is_floating_point());
  const int64_t needed = BytesNeeded(maps.size(1));
  if (maps.is_cpu()) byte_budget = std::min(byte_budget, std::max(needed, kMostCpuBytes));
  TensorSpectra spectra(std::move(maps), heads, byte_budget);
  if (needed > byte_budget) {
    return absl::ResourceExhaustedError(
        fmt::format("tensor spectra: one head of length {} needs {} bytes; the budget is {}",
                    spectra.length(), needed, byte_budget));
  }
  ESS_RETURN_IF_ERROR(spectra.Measure(cancellation));
  return spectra;
}

absl::Status TensorSpectra::Measure(const CancellationToken& cancellation) {
  const int64_t at_once = std::max<int64_t>(1, byte_budget_ / TensorTree::BytesOfHead(length()));
  return CatchTorch("operators", [&]() -> absl::Status {
    const c10::InferenceMode inference;
    const SerialTorch serial;
    for (int64_t first = 0; first < heads(); first += at_once) {
      ESS_RETURN_IF_ERROR(cancellation.Check());
      const int64_t last = std::min(heads(), first + at_once);
      const at::Tensor matrices = Maps(first, last).tril();
      const at::Tensor sizes = matrices.abs();
      const std::vector<double> with_diagonal = OnHost(sizes.amax({1, 2}));
      sizes.diagonal(0, 1, 2).zero_();
      const std::vector<double> largest = OnHost(sizes.amax({1, 2}));
      for (size_t head = 0; head < largest.size(); ++head) {
        if (!std::isfinite(with_diagonal[head])) {
          return NotFinite(matrices, std::span(heads_).subspan(first));
        }
        scales_.push_back(PowerOfTwoAbove(largest[head]));
      }
    }
    return absl::OkStatus();
  });
}

at::Tensor TensorSpectra::Maps(int64_t first, int64_t last) const {
  const at::Tensor index =
      at::tensor(at::IntArrayRef(heads_).slice(first, last - first), at::kLong);
  return maps_.index_select(0, index.to(maps_.device())).to(at::kDouble);
}

at::Tensor TensorSpectra::Scaled(int64_t first, int64_t last) const {
  std::vector<double> inverses;
  for (int64_t head = first; head < last; ++head) inverses.push_back(1 / scales_[head]);
  const at::Tensor factors = at::tensor(inverses, at::kDouble).to(maps_.device());
  return Maps(first, last).tril(-1).mul_(factors.view({-1, 1, 1}));
}

absl::Status TensorSpectra::ForEachChunk(
    int64_t shifts, const CancellationToken& cancellation,
    absl::FunctionRef<absl::Status(int64_t first, const TensorChunk& chunk)> work) {
  const int64_t head_bytes = TensorTree::BytesOfHead(length());
  const int64_t pair_bytes = TensorTree::BytesOfPair(length());
  const int64_t at_once = std::clamp<int64_t>(byte_budget_ / (head_bytes + pair_bytes), 1, heads());
  const int64_t shifts_at_once =
      std::clamp<int64_t>((byte_budget_ / at_once - head_bytes) / pair_bytes, 1, shifts);
  const absl::Status status = CatchTorch("tensor spectra", [&]() -> absl::Status {
    const c10::InferenceMode inference;
    const SerialTorch serial;
    if (at_once == heads()) {
      if (!whole_) whole_.emplace(Scaled(0, heads()), shifts_at_once);
      whole_->set_shifts_at_once(shifts_at_once);
      return work(0, *whole_);
    }
    if (at_once == heads()) {
      if (!whole_) whole_.emplace(Scaled(0, heads()), shifts_at_once);
      whole_->set_shifts_at_once(shifts_at_once);
      return work(0, *whole_);
    }
    for (int64_t first = 0; first < heads(); first += at_once) {
      ESS_RETURN_IF_ERROR(cancellation.Check());
      const at::Tensor matrices = Scaled(first, std::min(heads(), first + at_once));
      ESS_RETURN_IF_ERROR(work(first, TensorChunk(matrices, shifts_at_once)));
    }
    return absl::OkStatus();
  });
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  return absl::ResourceExhaustedError(fmt::format(
      "{}; planned were {} bytes for {} heads of length {} and {} shifts, of a budget of {}",
      std::string(status.message()), at_once * (head_bytes + shifts_at_once * pair_bytes), at_once,
      length(), shifts_at_once, byte_budget_));
}

std::vector<double> TensorSpectra::NormsOf(int64_t first, const TensorChunk& chunk) {
  frobenius_norms_.resize(heads());
  if (frobenius_norms_[first].empty()) {
    const std::vector<double> all = linalg::FrobeniusNorms(chunk);
    for (int64_t head = 0; head < chunk.heads(); ++head) {
      const auto row = all.begin() + head * length();
      frobenius_norms_[first + head].assign(row, row + length());
    }
  }
  std::vector<double> norms;
  for (int64_t head = first; head < first + chunk.heads(); ++head) {
    norms.insert(norms.end(), frobenius_norms_[head].begin(), frobenius_norms_[head].end());
  }
  return norms;
}

absl::StatusOr<std::vector<double>> TensorSpectra::MaxSpectralNorms(
    double accuracy, const CancellationToken& cancellation) {
  if (max_norms_.empty() || norm_accuracy_ > accuracy) {
    std::vector<double> norms;
    ESS_RETURN_IF_ERROR(ForEachChunk(1, cancellation, [&](int64_t first, const TensorChunk& chunk) {
      const auto of_chunk =
          linalg::MaxSpectralNorms(chunk, NormsOf(first, chunk), accuracy, cancellation);
      if (of_chunk.ok()) norms.insert(norms.end(), of_chunk->begin(), of_chunk->end());
      return of_chunk.status();
    }));
    max_norms_ = std::move(norms);
    norm_accuracy_ = accuracy;
  }
  std::vector<double> result = max_norms_;
  for (int64_t head = 0; head < heads(); ++head) result[head] *= scales_[head];
  return result;
}

absl::StatusOr<std::vector<std::vector<double>>> TensorSpectra::FrobeniusNorms(
    const CancellationToken& cancellation) {
  std::vector<std::vector<double>> result;
  ESS_RETURN_IF_ERROR(ForEachChunk(1, cancellation, [&](int64_t first, const TensorChunk& chunk) {
    NormsOf(first, chunk);
    for (int64_t head = first; head < first + chunk.heads(); ++head) {
      result.push_back(Multiplied(frobenius_norms_[head], scales_[head]));
    }
    return absl::OkStatus();
  }));
  return result;
}

absl::Status TensorSpectra::ComputeChunk(const TensorSpectraRequest& request, int64_t first,
                                         const TensorChunk& chunk,
                                         const CancellationToken& cancellation,
                                         std::span<Spectrum> spectra) {
  const std::vector<double> frobenius = NormsOf(first, chunk);
  const int64_t count = chunk.heads();
  if (!request.tolerances.empty()) {
    ESS_ASSIGN_OR_RETURN(std::vector<double> norms,
                         ProbableSpectralNorms(chunk, frobenius, cancellation));
    std::vector<double> taus;
    for (int64_t head = first; head < first + count; ++head) {
      if (!max_norms_.empty() && max_norms_[head] > 0) norms[head - first] = max_norms_[head];
      for (const std::vector<double>& of_heads : request.tolerances) {
        taus.push_back(of_heads[head] / scales_[head]);
      }
    }
    ESS_ASSIGN_OR_RETURN(std::vector<PositionCounts> counts,
                         CountAbove(chunk, taus, norms, cancellation));
    const int64_t per_head = request.tolerances.size();
    for (size_t pair = 0; pair < counts.size(); ++pair) {
      spectra[pair / per_head].tolerance_counts.push_back(std::move(counts[pair]));
    }
  }
  if (request.entropies) {
    ESS_RETURN_IF_ERROR(FillEntropies(chunk, frobenius, spectra, cancellation));
  }
  if (!request.spectral_norms && request.fractions.empty()) return absl::OkStatus();

  ESS_ASSIGN_OR_RETURN(const std::vector<double> norms,
                       SpectralNorms(chunk, frobenius, cancellation));
  for (int64_t head = 0; request.spectral_norms && head < count; ++head) {
    const std::span<const double> of_head(norms.data() + head * length(), length());
    spectra[head].spectral_norms = Multiplied(of_head, scales_[first + head]);
  }
  if (request.fractions.empty()) return absl::OkStatus();

  ESS_ASSIGN_OR_RETURN(
      std::vector<std::vector<PositionCounts>> counts,
      CountAboveFractions(chunk, request.fractions, norms, byte_budget_ / 2, cancellation));
  for (std::vector<PositionCounts>& of_heads : counts) {
    for (int64_t head = 0; head < count; ++head) {
      spectra[head].fraction_counts.push_back(std::move(of_heads[head]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Spectrum>> TensorSpectra::Compute(
    const TensorSpectraRequest& request, const CancellationToken& cancellation) {
  int64_t shifts = std::max<int64_t>(1, request.tolerances.size());
  if (request.entropies) shifts = std::max<int64_t>(shifts, kEntropyShifts);
  for (const std::vector<double>& of_heads : request.tolerances) {
    ESS_CHECK(static_cast<int64_t>(of_heads.size()) == heads());
  }
  std::vector<Spectrum> spectra(heads());
  ESS_RETURN_IF_ERROR(
      ForEachChunk(shifts, cancellation, [&](int64_t first, const TensorChunk& chunk) {
        return ComputeChunk(request, first, chunk, cancellation,
                            std::span(spectra).subspan(first, chunk.heads()));
      }));
  return spectra;
}

absl::StatusOr<std::vector<double>> TensorSpectra::SingularValues(int64_t head,
                                                                  int64_t position) const {
  ESS_CHECK(head >= 0 && head < heads() && position >= 0 && position < length());
  std::vector<double> result;
  ESS_RETURN_IF_ERROR(CatchTorch("singular values of a block", [&] {
    const c10::InferenceMode inference;
    const SerialTorch serial;
    const at::Tensor block = Scaled(head, head + 1)[0].slice(0, position).slice(1, 0, position);
    result = Multiplied(OnHost(at::linalg_svdvals(block)), scales_[head]);
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace ess::linalg
