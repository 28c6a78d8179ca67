#include "server/linalg/tensor_entropies.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"
#include "server/linalg/entropy_rule.h"

namespace ess::linalg {
namespace {

constexpr int kMaxScales = 4;
// Half of what the rule allows.
constexpr double kScaleRatio = kLargestScaleRatio / 2;

struct HeadInWork {
  int64_t head;
  std::vector<int64_t> left;  // Positions without an answer.
  double scale = 0;           // The largest norm among them.
};

void Rescale(std::span<const double> norms, HeadInWork& work) {
  work.scale = 0;
  for (const int64_t i : work.left) work.scale = std::max(work.scale, norms[i]);
}

// Answers the positions that the scale is right for.
void Estimate(const ShiftSums& run, int64_t row, std::span<const double> norms, HeadInWork& work,
              Spectrum& spectrum) {
  std::vector<int64_t> left;
  for (const int64_t i : work.left) {
    if (norms[i] * kScaleRatio < work.scale) {
      left.push_back(i);
      continue;
    }
    std::array<double, kEntropyShifts> log_dets;
    for (int j = 0; j < kEntropyShifts; ++j) {
      log_dets[j] = run.Of(row, j)[i] -
                    static_cast<double>(run.pivots) * std::log(kEntropyRule[j].shift * work.scale);
    }
    const double ratio = norms[i] / work.scale;
    const EntropyEstimate estimate =
        EstimateEntropy(log_dets, ratio * ratio, static_cast<double>(std::min(i, run.length - i)));
    spectrum.entropies[i] = estimate.entropy;
    spectrum.entropy_errors[i] = estimate.error;
  }
  work.left = std::move(left);
}

}  // namespace

absl::Status FillEntropies(const TensorChunk& chunk, std::span<const double> frobenius,
                           std::span<Spectrum> spectra, const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  const auto norms_of = [&](int64_t head) { return frobenius.subspan(head * length, length); };
  std::vector<HeadInWork> open;
  for (int64_t head = 0; head < chunk.heads(); ++head) {
    spectra[head].entropies.assign(length, 0.0);
    spectra[head].entropy_errors.assign(length, 0.0);
    HeadInWork& work = open.emplace_back(HeadInWork{.head = head, .left = {}});
    for (int64_t i = 1; i < length; ++i) {
      if (norms_of(head)[i] > 0) work.left.push_back(i);
    }
  }
  for (int round = 0; round < kMaxScales; ++round) {
    std::erase_if(open, [](const HeadInWork& work) { return work.left.empty(); });
    if (open.empty()) break;
    std::vector<int64_t> heads;
    std::vector<double> shifts;
    for (HeadInWork& work : open) {
      Rescale(norms_of(work.head), work);
      heads.push_back(work.head);
      for (int j = 0; j < kEntropyShifts; ++j) {
        shifts.push_back(kEntropyRule[j].shift * work.scale);
      }
    }
    ESS_ASSIGN_OR_RETURN(const ShiftSums run,
                         chunk.Select(heads).Run(shifts, PivotSum::kLogAbs, cancellation));
    for (size_t row = 0; row < open.size(); ++row) {
      Estimate(run, row, norms_of(open[row].head), open[row], spectra[open[row].head]);
    }
  }
  for (const HeadInWork& work : open) {
    for (const int64_t i : work.left) spectra[work.head].entropies[i] = NAN;
  }
  for (Spectrum& spectrum : spectra)
    spectrum.entropy_errors = SpreadErrors(spectrum.entropy_errors);
  return absl::OkStatus();
}

}  // namespace ess::linalg
