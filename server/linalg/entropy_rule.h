// Entropy of a block's singular values from a few log-determinants.
//
// S = sum sigma and P = sum sigma log sigma are integrals over t of log det(I + H^T H / t^2), so
// weighted sums of it at some shifts t_j, and of ||H||_F^2, come close to both; and the entropy-ESS
// is exp(log S - P / S). The 20 shifts lie quadratically in log t, dense at the top. With a scale
// between ||H||_F and 8 ||H||_F the relative error stays below 1e-4, typically 1e-5.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace ess::linalg {

inline constexpr int kEntropyShifts = 20;
// Largest ratio of the scale to ||H||_F.
inline constexpr double kLargestScaleRatio = 8;
// In units of the scale.
inline constexpr std::array<double, kEntropyShifts> kEntropyShiftAt = {
    1.5448986725154417,     0.8227727634459148,     0.42137018248286134,   0.20751604461056958,
    0.09827511223464647,    0.04475477757091131,    0.019599240611879315,  0.008253593454747642,
    0.0033423420176798223,  0.0013015554982633627,  0.0004873920944554282, 0.0001755085414491298,
    6.0774587597026304e-05, 2.0237169579382718e-05, 6.480097022011969e-06, 1.9953414880059075e-06,
    5.908223885385578e-07,  1.6822891439919974e-07, 4.606258723651336e-08, 1.2128301928946927e-08};

struct EntropyEstimate {
  double entropy = 0;  // exp(-sum p ln p), p = sigma / sum sigma.
  double error = 0;    // Relative; see SpreadErrors.
};

// `log_dets[j]`: log det(I + H^T H / (kEntropyShiftAt[j] scale)^2); `square`: (||H||_F / scale)^2,
// not 0; `rank_bound`: the smaller side of H.
EntropyEstimate EstimateEntropy(const std::array<double, kEntropyShifts>& log_dets, double square,
                                double rank_bound);

// The largest error within 4 positions of each one whose own is not 0. The error at one position
// can be too small by accident, but not at nine.
std::vector<double> SpreadErrors(std::span<const double> errors);

}  // namespace ess::linalg
