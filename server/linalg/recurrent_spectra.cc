#include "server/linalg/recurrent_spectra.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/small_svd.h"
#include "server/linalg/window_measures.h"
#include "server/linalg/window_norms.h"

namespace ess::linalg {
namespace {

// Of windows for counts whose tau differs from position to position: the narrower the window, the
// fewer of them share an elimination. Measured: 8 costs more than it saves.
constexpr int64_t kNarrowWidth = 16;

// exp(-sum p ln p), p = sigma / sum sigma.
double ExactEntropy(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double value : sigma) sum += value;
  if (!(sum > 0)) return 0;
  double entropy = 0;
  for (const double value : sigma) entropy -= value > 0 ? value / sum * std::log(value / sum) : 0;
  return std::exp(entropy);
}

// Finds the largest sigma_1: Lanczos where it may be, then counts that name the windows with a
// larger one.
class LargestNormSearch {
 public:
  LargestNormSearch(RecurrentWindows& windows, double accuracy,
                    const CancellationToken& cancellation)
      : windows_(windows), accuracy_(accuracy), cancellation_(cancellation) {}

  absl::StatusOr<double> Find() {
    std::vector<Candidate> candidates;
    for (const RecurrentWindow& window : windows_.windows()) {
      const auto top = std::max_element(window.squared_norms.begin(), window.squared_norms.end());
      candidates.push_back(
          {&window, top - window.squared_norms.begin(), FrobeniusNorm(window, *top)});
    }
    while (true) {
      const auto top =
          std::max_element(candidates.begin(), candidates.end(),
                           [](const Candidate& x, const Candidate& y) { return x.norm < y.norm; });
      if (top == candidates.end() || !(top->norm > 0)) return best_;
      ESS_RETURN_IF_ERROR(Measure(*top));
      ESS_ASSIGN_OR_RETURN(candidates, StillLarger(candidates));
    }
  }

 private:
  struct Candidate {
    const RecurrentWindow* window;
    int64_t position;  // Within the window.
    double norm;       // ||H_i||_F there.
  };

  static double FrobeniusNorm(const RecurrentWindow& window, double square) {
    return std::ldexp(std::sqrt(square), window.exponent);
  }

  // sigma_1 at the candidate and its neighbours.
  absl::Status Measure(const Candidate& candidate) {
    const RecurrentWindow& window = *candidate.window;
    const ArenaScope scope(windows_.arena());
    WindowNorms lanczos(window, windows_.arena());
    const int64_t strip = candidate.position / kStrip;
    std::vector<double> norms(lanczos.positions(strip));
    ESS_RETURN_IF_ERROR(lanczos.Fill(strip, norms, cancellation_));
    for (size_t k = 0; k < norms.size(); ++k) {
      if (!std::isnan(norms[k])) best_ = std::max(best_, std::ldexp(norms[k], window.exponent));
    }
    return absl::OkStatus();
  }

  // Positions with a sigma_1 above the best one.
  absl::StatusOr<std::vector<Candidate>> StillLarger(const std::vector<Candidate>& candidates) {
    std::vector<Candidate> larger;
    const double tau = best_ * (1 + accuracy_ / 2);
    for (const Candidate& candidate : candidates) {
      const RecurrentWindow& window = *candidate.window;
      ESS_ASSIGN_OR_RETURN(const BlockCounts counts,
                           CountAbove(window, std::ldexp(tau, -window.exponent), {0, window.width},
                                      windows_.arena(), cancellation_));
      if (counts.uncertainty > 0) {
        ESS_RETURN_IF_ERROR(MeasureAll(window));
        continue;
      }
      Candidate next{&window, 0, 0};
      for (int64_t i = 0; i < window.count; ++i) {
        const double norm = FrobeniusNorm(window, window.squared_norms[i]);
        if (counts.counts[i] > 0 && norm > next.norm) next = {&window, i, norm};
      }
      if (next.norm > 0) larger.push_back(next);
    }
    return larger;
  }

  // Where counts prove nothing: sigma_1 at every position.
  absl::Status MeasureAll(const RecurrentWindow& window) {
    for (int64_t i = 0; i < window.width; i += kStrip) {
      ESS_RETURN_IF_ERROR(Measure({&window, i, 0}));
    }
    return absl::OkStatus();
  }

  RecurrentWindows& windows_;
  const double accuracy_;
  const CancellationToken& cancellation_;
  double best_ = 0;
};

// What is asked of one operator, window by window.
class SpectrumBuilder {
 public:
  SpectrumBuilder(RecurrentWindows& windows, const SpectrumRequest& request,
                  const CancellationToken& cancellation)
      : windows_(windows), request_(request), cancellation_(cancellation) {
    const int64_t length = windows.length();
    const PositionCounts none{.counts = std::vector<int32_t>(length, 0), .doubtful = {}};
    spectrum_.tolerance_counts.assign(request.tolerances.size(), none);
    spectrum_.fraction_counts.assign(request.fractions.size(), none);
    if (request.spectral_norms) spectrum_.spectral_norms.assign(length, 0.0);
    if (request.entropies) {
      spectrum_.entropies.assign(length, 0.0);
      errors_.assign(length, 0.0);
    }
  }

  absl::StatusOr<Spectrum> Build() {
    for (const RecurrentWindow& window : windows_.windows()) {
      ESS_RETURN_IF_ERROR(cancellation_.Check());
      ESS_RETURN_IF_ERROR(Count(window));
      if (request_.entropies) ESS_RETURN_IF_ERROR(AddEntropies(window));
      if (!request_.fractions.empty() && window.width > kNarrowWidth) {
        ESS_ASSIGN_OR_RETURN(const std::vector<RecurrentWindow> parts,
                             windows_.Split(window, kNarrowWidth, cancellation_));
        for (const RecurrentWindow& part : parts) ESS_RETURN_IF_ERROR(AddNorms(part));
      } else if (request_.spectral_norms || !request_.fractions.empty()) {
        ESS_RETURN_IF_ERROR(AddNorms(window));
      }
    }
    if (request_.entropies) spectrum_.entropy_errors = SpreadErrors(errors_);
    return std::move(spectrum_);
  }

 private:
  // Stores what was found for one window, doubts only where there are some.
  void Store(const RecurrentWindow& window, std::span<const int32_t> counts,
             std::span<const uint8_t> doubtful, PositionCounts& result) const {
    std::copy_n(counts.begin(), window.count, result.counts.begin() + window.first);
    if (std::all_of(doubtful.begin(), doubtful.end(), [](uint8_t mark) { return mark == 0; })) {
      return;
    }
    result.doubtful.resize(windows_.length());
    std::copy_n(doubtful.begin(), window.count, result.doubtful.begin() + window.first);
  }

  absl::Status Count(const RecurrentWindow& window) {
    const auto count = [&](double tau) {
      return CountAbove(window, tau, {0, window.width}, windows_.arena(), cancellation_);
    };
    for (size_t t = 0; t < request_.tolerances.size(); ++t) {
      const double tau = std::ldexp(request_.tolerances[t], -window.exponent);
      ESS_ASSIGN_OR_RETURN(const PositionCounts counts, ProvedCounts(tau, count));
      Store(window, counts.counts, counts.doubtful, spectrum_.tolerance_counts[t]);
    }
    return absl::OkStatus();
  }

  absl::Status AddEntropies(const RecurrentWindow& window) {
    std::vector<EntropyEstimate> estimates(window.width);
    ESS_RETURN_IF_ERROR(
        FillEntropies(window, windows_.length(), estimates, windows_.arena(), cancellation_));
    for (int64_t i = 0; i < window.count; ++i) {
      if (std::isnan(estimates[i].entropy)) {
        estimates[i] = {.entropy = ExactEntropy(windows_.SingularValuesAt(window.first + i)),
                        .error = 0};
      }
      spectrum_.entropies[window.first + i] = estimates[i].entropy;
      errors_[window.first + i] = estimates[i].error;
    }
    return absl::OkStatus();
  }

  // sigma_1 everywhere, and from it the counts above fractions of it.
  absl::Status AddNorms(const RecurrentWindow& window) {
    std::vector<double> norms(window.width);
    ESS_RETURN_IF_ERROR(FillSpectralNorms(window, norms, windows_.arena(), cancellation_));
    std::vector<std::vector<double>> exact(window.width);
    for (int64_t i = 0; i < window.count; ++i) {
      if (std::isnan(norms[i])) exact[i] = windows_.SingularValuesAt(window.first + i);
    }
    if (request_.spectral_norms) {
      for (int64_t i = 0; i < window.count; ++i) {
        double& norm = spectrum_.spectral_norms[window.first + i];
        if (!std::isnan(norms[i])) {
          norm = std::ldexp(norms[i], window.exponent);
        } else {
          norm = exact[i].empty() ? 0 : exact[i].front();
        }
      }
    }
    for (size_t f = 0; f < request_.fractions.size(); ++f) {
      const double fraction = request_.fractions[f];
      std::vector<double> taus(window.width, NAN);
      std::vector<int32_t> counts(window.width, 0);
      std::vector<uint8_t> doubtful(window.width, 0);
      for (int64_t i = 0; i < window.count; ++i) {
        taus[i] = norms[i] > 0 ? fraction * norms[i] : NAN;
        if (exact[i].empty()) continue;
        const double tau = fraction * exact[i].front() * (1 + 1e-11);
        counts[i] = std::count_if(exact[i].begin(), exact[i].end(),
                                  [tau](double sigma) { return sigma > tau; });
      }
      ESS_RETURN_IF_ERROR(
          CountAboveEach(window, taus, counts, doubtful, windows_.arena(), cancellation_));
      Store(window, counts, doubtful, spectrum_.fraction_counts[f]);
    }
    return absl::OkStatus();
  }

  RecurrentWindows& windows_;
  const SpectrumRequest& request_;
  const CancellationToken& cancellation_;
  Spectrum spectrum_;
  std::vector<double> errors_;
};

}  // namespace

absl::StatusOr<double> RecurrentSpectra::MaxSpectralNorm(double accuracy,
                                                         const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(windows_.Prepare(cancellation));
  return LargestNormSearch(windows_, accuracy, cancellation).Find();
}

absl::StatusOr<Spectrum> RecurrentSpectra::Compute(const SpectrumRequest& request,
                                                   const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(windows_.Prepare(cancellation));
  return SpectrumBuilder(windows_, request, cancellation).Build();
}

std::vector<double> RecurrentSpectra::FrobeniusNorms() {
  ESS_CHECK(windows_.Prepare(CancellationToken()).ok());
  std::vector<double> norms(length());
  for (const RecurrentWindow& window : windows_.windows()) {
    for (int64_t i = 0; i < window.count; ++i) {
      norms[window.first + i] = std::ldexp(std::sqrt(window.squared_norms[i]), window.exponent);
    }
  }
  return norms;
}

absl::StatusOr<std::vector<double>> RecurrentSpectra::SingularValues(int64_t position) {
  ESS_RETURN_IF_ERROR(windows_.Prepare(CancellationToken()));
  return windows_.SingularValuesAt(position);
}

absl::StatusOr<std::vector<int32_t>> RecurrentSpectra::CausalRanks(
    const CancellationToken& cancellation) {
  return windows_.CausalRanks(cancellation);
}

}  // namespace ess::linalg
