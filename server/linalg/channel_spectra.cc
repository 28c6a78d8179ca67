#include "server/linalg/channel_spectra.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/dense_svd.h"
#include "server/linalg/nudged_counts.h"

namespace ess::linalg {
namespace {

// Bidiagonal forms cost as much as this many eliminations, and make tolerances nearly free.
constexpr int64_t kMostEliminations = 12;

// The estimate of an entropy's error is the largest within this many positions on either side.
constexpr int64_t kErrorReach = 4;

constexpr double kEpsilon = 0x1p-52;

bool EveryWindow(int64_t first_position) { return true; }

// Running maximum over neighbouring positions, lane by lane: [L, lanes].
std::vector<double> LargestNearby(const std::vector<double>& values, int64_t length,
                                  int64_t lanes) {
  std::vector<double> result(values.size());
  for (int64_t i = 0; i < length; ++i) {
    const int64_t last = std::min(length - 1, i + kErrorReach);
    for (int64_t near = std::max<int64_t>(0, i - kErrorReach); near <= last; ++near) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        double& largest = result[i * lanes + lane];
        largest = std::max(largest, values[near * lanes + lane]);
      }
    }
  }
  return result;
}

// For each lane the next position whose sigma_1 is worth knowing, 0 for none. `bounds` [L, lanes]
// are upper bounds of sigma_1^2, 0 where sigma_1 is known to be no new maximum. The largest bound
// is the best guess; should bounds mislead, every other round takes a position from the middle,
// which leaves half of the rest on average.
std::vector<int64_t> NextCandidates(const std::vector<double>& bounds, int64_t length,
                                    int64_t lanes, int round) {
  std::vector<int64_t> candidates(lanes, 0);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    int64_t open = 0;
    for (int64_t i = 1; i < length; ++i) {
      const double bound = bounds[i * lanes + lane];
      if (bound > bounds[candidates[lane] * lanes + lane]) candidates[lane] = i;
      open += bound > 0;
    }
    if (round % 2 == 0 || open == 0) continue;
    int64_t before = open / 2;
    for (int64_t i = 1; i < length; ++i) {
      if (bounds[i * lanes + lane] > 0 && before-- == 0) candidates[lane] = i;
    }
  }
  return candidates;
}

}  // namespace

ChannelSpectra::ChannelSpectra(int64_t scratch_bytes) : group_(scratch_bytes) {}

absl::Status ChannelSpectra::Load(const ChannelRecurrence& recurrence, int64_t channel,
                                  const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(group_.Load(recurrence, channel, cancellation));
  forms_.Reset();
  counter_.Reset();
  core_ = LaneMemory(group_.layout().TriangleSize());
  values_ = LaneMemory(kWindow * lanes());
  thresholds_ = LaneMemory(lanes());
  squares_ = LaneMemory(2 * group_.layout().padded_states() * lanes());
  return absl::OkStatus();
}

int64_t ChannelSpectra::memory_bytes() const {
  return group_.memory_bytes() + forms_.memory_bytes() + counter_.memory_bytes() +
         BytesOf({&core_, &values_, &thresholds_, &squares_});
}

double ChannelSpectra::ScaledTolerance(double tolerance, int64_t lane) const {
  return std::ldexp(tolerance * (1 + kTieNudge), -group_.exponent(lane));
}

int64_t ChannelSpectra::FormsWork() const {
  const int64_t states = group_.layout().padded_states();
  return kWindow * lanes() * states * states * (4 * states + 60);
}

absl::StatusOr<std::vector<double>> ChannelSpectra::LargestAt(const std::vector<int64_t>& positions,
                                                              WorkMeter& meter) {
  ESS_RETURN_IF_ERROR(group_.CoresAt(positions, core_.get(), meter));
  const WindowLayout& layout = group_.layout();
  group_.kernels().bidiagonalize(layout, core_.get(), group_.scratch(), squares_.get(),
                                 thresholds_.get());
  group_.kernels().largest_singular_values(layout.padded_states(), squares_.get(),
                                           thresholds_.get(), values_.get());
  return std::vector<double>(values_.get(), values_.get() + lanes());
}

absl::StatusOr<std::vector<double>> ChannelSpectra::MaxSpectralNorms(
    double accuracy, const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(ChannelAnswers answers,
                       Compute({.max_norm_accuracy = accuracy}, cancellation));
  return std::move(answers.max_spectral_norms);
}

absl::StatusOr<std::vector<double>> ChannelSpectra::LargestNorms(std::vector<double> bounds,
                                                                 double accuracy,
                                                                 WorkMeter& meter) {
  const int64_t length = group_.length();
  std::vector<double> best(lanes(), 0.0);
  std::vector<double> proof(lanes());
  const auto close = [&](int64_t first) {
    const int64_t end = std::min(length, first + kWindow);
    bool open = false;
    for (int64_t entry = first * lanes(); entry < end * lanes(); ++entry) {
      const double tau = proof[entry % lanes()];
      if (bounds[entry] <= tau * tau) bounds[entry] = 0;
      open |= bounds[entry] > 0;
    }
    return open;
  };
  const auto count = [&](int64_t first, const ChannelWindow& window) {
    counter_.Count(first, window, proof, values_.get());
    const int64_t entries = std::min(kWindow, length - first) * lanes();
    for (int64_t entry = 0; entry < entries; ++entry) {
      if (values_[entry] == 0) bounds[first * lanes() + entry] = 0;
    }
  };
  for (int round = 0;; ++round) {
    const std::vector<int64_t> candidates = NextCandidates(bounds, length, lanes(), round);
    if (std::all_of(candidates.begin(), candidates.end(), [](int64_t i) { return i == 0; })) {
      return best;
    }
    ESS_ASSIGN_OR_RETURN(const std::vector<double> tops, LargestAt(candidates, meter));
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      best[lane] = std::max(best[lane], tops[lane]);
      proof[lane] = best[lane] * (1 + accuracy / 2);
      bounds[candidates[lane] * lanes() + lane] = 0;
    }
    ESS_RETURN_IF_ERROR(
        group_.ForEachWindow(ChannelGroup::Detail::kDescription, close, count, meter));
  }
}

void ChannelSpectra::CountByElimination(const ChannelRequest& request, int64_t first_position,
                                        const ChannelWindow& window, ChannelAnswers& answers) {
  const int64_t entries = std::min(kWindow, group_.length() - first_position) * lanes();
  const int64_t tolerances = static_cast<int64_t>(request.tolerances.size()) / lanes();
  std::vector<double> taus(lanes());
  for (int64_t k = 0; k < tolerances; ++k) {
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      taus[lane] = ScaledTolerance(request.tolerances[k * lanes() + lane], lane);
    }
    counter_.Count(first_position, window, taus, values_.get());
    uint8_t* counts =
        answers.tolerance_counts.data() + (k * group_.length() + first_position) * lanes();
    for (int64_t entry = 0; entry < entries; ++entry) {
      counts[entry] = static_cast<uint8_t>(values_[entry]);
    }
  }
}

void ChannelSpectra::AnswerPosition(const ChannelRequest& request, int64_t position, int64_t offset,
                                    ChannelAnswers& answers) {
  const int64_t bound = group_.RankBound(position);
  const auto count_into = [&](std::vector<uint8_t>& counts, int64_t index) {
    forms_.Count(offset, thresholds_.get(), bound, values_.get());
    uint8_t* row = counts.data() + (index * group_.length() + position) * lanes();
    for (int64_t lane = 0; lane < lanes(); ++lane) row[lane] = static_cast<uint8_t>(values_[lane]);
  };
  const int64_t tolerances = static_cast<int64_t>(request.tolerances.size()) / lanes();
  for (int64_t k = 0; k < tolerances; ++k) {
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      thresholds_[lane] = ScaledTolerance(request.tolerances[k * lanes() + lane], lane);
    }
    count_into(answers.tolerance_counts, k);
  }
  if (request.spectral_norms || request.max_norm_accuracy > 0 || !request.fractions.empty()) {
    forms_.LargestSingularValues(offset, values_.get());
    const std::vector<double> tops(values_.get(), values_.get() + lanes());
    for (size_t k = 0; k < request.fractions.size(); ++k) {
      for (int64_t lane = 0; lane < lanes(); ++lane) {
        thresholds_[lane] = request.fractions[k] * tops[lane] * (1 + kTieNudge);
      }
      count_into(answers.fraction_counts, k);
    }
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      const double top = std::ldexp(tops[lane], group_.exponent(lane));
      if (request.spectral_norms) answers.spectral_norms[position * lanes() + lane] = top;
      if (request.max_norm_accuracy > 0) {
        double& largest = answers.max_spectral_norms[lane];
        largest = std::max(largest, top);
      }
    }
  }
  if (request.entropies) {
    forms_.Entropies(offset, values_.get(), thresholds_.get());
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      // Whatever the quadrature says, a block of rank r has an entropy from 1 to r.
      const double entropy = values_[lane];
      answers.entropies[position * lanes() + lane] =
          entropy == 0 ? 0 : std::clamp(entropy, 1.0, static_cast<double>(bound));
      answers.entropy_errors[position * lanes() + lane] = thresholds_[lane];
    }
  }
}

void ChannelSpectra::AnswerFromForms(const ChannelRequest& request, int64_t first_position,
                                     const ChannelWindow& window, ChannelAnswers& answers) {
  forms_.MakeBlocks(first_position, window);
  const int64_t end = std::min(group_.length(), first_position + kWindow);
  for (int64_t i = std::max<int64_t>(1, first_position); i < end; ++i) {
    AnswerPosition(request, i, i - first_position, answers);
  }
}

absl::StatusOr<ChannelAnswers> ChannelSpectra::Compute(const ChannelRequest& request,
                                                       const CancellationToken& cancellation) {
  const int64_t entries = group_.length() * lanes();
  const int64_t tolerances = static_cast<int64_t>(request.tolerances.size()) / lanes();
  ESS_CHECK(tolerances * lanes() == static_cast<int64_t>(request.tolerances.size()));
  ChannelAnswers answers;
  answers.tolerance_counts.resize(tolerances * entries);
  answers.fraction_counts.resize(static_cast<int64_t>(request.fractions.size()) * entries);
  if (request.spectral_norms) answers.spectral_norms.resize(entries);
  if (request.entropies) answers.entropies.resize(entries);
  if (request.entropies) answers.entropy_errors.resize(entries);

  if (request.max_norm_accuracy > 0) answers.max_spectral_norms.resize(lanes());

  const bool from_forms = request.entropies || request.spectral_norms ||
                          !request.fractions.empty() || tolerances > kMostEliminations;
  const int64_t recounted_before = counter_.recounted_windows();
  std::vector<double> bounds(request.max_norm_accuracy > 0 && !from_forms ? entries : 0);
  WorkMeter meter(cancellation);
  const auto answer_from_forms = [&](int64_t first, const ChannelWindow& window) {
    if (meter.Continue(FormsWork())) AnswerFromForms(request, first, window, answers);
  };
  const auto answer_by_elimination = [&](int64_t first, const ChannelWindow& window) {
    CountByElimination(request, first, window, answers);
    if (bounds.empty()) return;
    group_.kernels().bound_norms(group_.layout(), window);
    const int64_t count = std::min(kWindow, group_.length() - first) * lanes();
    std::copy_n(window.norm_bounds, count, bounds.begin() + first * lanes());
  };
  if (from_forms) {
    ESS_RETURN_IF_ERROR(group_.ForEachWindow(ChannelGroup::Detail::kFactors, EveryWindow,
                                             answer_from_forms, meter));
  } else {
    ESS_RETURN_IF_ERROR(group_.ForEachWindow(ChannelGroup::Detail::kDescription, EveryWindow,
                                             answer_by_elimination, meter));
  }
  if (!bounds.empty()) {
    std::fill_n(bounds.begin(), lanes(), 0.0);
    ESS_ASSIGN_OR_RETURN(answers.max_spectral_norms,
                         LargestNorms(std::move(bounds), request.max_norm_accuracy, meter));
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      answers.max_spectral_norms[lane] =
          std::ldexp(answers.max_spectral_norms[lane], group_.exponent(lane));
    }
  }
  answers.recounted_windows = counter_.recounted_windows() - recounted_before;
  if (request.entropies) {
    answers.entropy_errors = LargestNearby(answers.entropy_errors, group_.length(), lanes());
  }
  return answers;
}

absl::StatusOr<std::vector<double>> ChannelSpectra::FrobeniusNorms(
    const CancellationToken& cancellation) {
  std::vector<double> norms(group_.length() * lanes(), 0.0);
  WorkMeter meter(cancellation);
  ESS_RETURN_IF_ERROR(group_.ForEachWindow(
      ChannelGroup::Detail::kDescription, EveryWindow,
      [&](int64_t first, const ChannelWindow& window) {
        const int64_t end = std::min(group_.length(), first + kWindow);
        for (int64_t i = std::max<int64_t>(1, first); i < end; ++i) {
          for (int64_t lane = 0; lane < lanes(); ++lane) {
            const double square = window.squared_norms[(i - first) * lanes() + lane];
            norms[i * lanes() + lane] = std::ldexp(std::sqrt(square), group_.exponent(lane));
          }
        }
      },
      meter));
  return norms;
}

absl::StatusOr<std::vector<double>> ChannelSpectra::SingularValues(
    int64_t lane, int64_t position, const CancellationToken& cancellation) {
  ESS_CHECK(lane >= 0 && lane < lanes() && position >= 0 && position < group_.length());
  WorkMeter meter(cancellation);
  std::vector<int64_t> positions(lanes(), 0);
  positions[lane] = position;
  ESS_RETURN_IF_ERROR(group_.CoresAt(positions, core_.get(), meter));
  const int64_t states = group_.layout().states();
  DenseMatrix matrix(states, states);
  double squares = 0;
  for (int64_t row = 0; row < states; ++row) {
    for (int64_t column = 0; column <= row; ++column) {
      const double entry = core_[LowerEntry(row, column) * lanes() + lane];
      matrix.Row(row)[column] = entry;
      squares += entry * entry;
    }
  }
  std::vector<double> values(states, 0.0);
  if (squares > kSmallestSquaredNorm) values = DenseSingularValues(std::move(matrix));
  values.resize(group_.RankBound(position));
  for (double& value : values) value = std::ldexp(value, group_.exponent(lane));
  return values;
}

absl::StatusOr<std::vector<int32_t>> ChannelSpectra::CausalRanks(
    const CancellationToken& cancellation) {
  std::vector<int32_t> ranks(group_.length() * lanes(), 0);
  WorkMeter meter(cancellation);
  ESS_RETURN_IF_ERROR(group_.ForEachWindow(
      ChannelGroup::Detail::kFactors, EveryWindow,
      [&](int64_t first, const ChannelWindow& window) {
        if (!meter.Continue(FormsWork())) return;
        forms_.MakePasts(first, window);
        const int64_t states = group_.layout().states();
        const int64_t end = std::min(group_.length(), first + kWindow);
        for (int64_t i = std::max<int64_t>(1, first); i < end; ++i) {
          forms_.LargestSingularValues(i - first, thresholds_.get());
          for (int64_t lane = 0; lane < lanes(); ++lane) {
            thresholds_[lane] *= static_cast<double>(std::max(states, i)) * kEpsilon;
          }
          forms_.Count(i - first, thresholds_.get(), std::min(states, i), values_.get());
          for (int64_t lane = 0; lane < lanes(); ++lane) {
            ranks[i * lanes() + lane] = static_cast<int32_t>(values_[lane]);
          }
        }
      },
      meter));
  return ranks;
}

}  // namespace ess::linalg
