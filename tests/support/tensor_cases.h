// Batches of test operators with their singular values, for the tests of the tensor route.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "server/linalg/tensor_spectra.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {

using ::ess::testing::DegenerateOperators;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::RealisticOperators;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;

inline const CancellationToken kNever;
inline constexpr int64_t kLargeBudget = int64_t{1} << 30;

// Operators of one length with the singular values of some of their blocks.
struct Batch {
  at::Tensor maps;  // [H, L, L]
  std::vector<std::string> names;
  std::vector<int64_t> positions;
  std::vector<std::vector<std::vector<double>>> sigma;  // [H][positions]
  std::vector<double> norms;                            // [H]: the largest of them.

  int64_t heads() const { return maps.size(0); }
  int64_t length() const { return maps.size(1); }
};

inline std::vector<double> SigmaOf(const at::Tensor& map, int64_t position) {
  const at::Tensor matrix = map.to(at::kDouble).contiguous();
  const std::span<const double> entries(matrix.const_data_ptr<double>(), matrix.numel());
  return *BlockSingularValues(entries, map.size(0), position);
}

inline Batch BatchOf(const std::vector<TestOperator>& ops, int64_t length, int64_t stride = 1) {
  Batch batch;
  std::vector<at::Tensor> maps;
  for (const TestOperator& op : ops) {
    maps.push_back(at::tensor(op.make(length), at::kDouble).view({length, length}));
    batch.names.push_back(op.name);
  }
  batch.maps = at::stack(maps);
  for (int64_t i = 1; i < length; i += stride) batch.positions.push_back(i);
  for (const at::Tensor& map : maps) {
    auto& of_head = batch.sigma.emplace_back();
    double norm = 0;
    for (const int64_t i : batch.positions) {
      norm = std::max(norm, of_head.emplace_back(SigmaOf(map, i)).front());
    }
    batch.norms.push_back(norm);
  }
  return batch;
}

inline std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

inline TensorSpectra SpectraOf(const at::Tensor& maps, int64_t budget = kLargeBudget) {
  absl::StatusOr<TensorSpectra> spectra = TensorSpectra::Create(maps, budget, kNever);
  EXPECT_THAT(spectra, IsOk());
  return *std::move(spectra);
}

inline int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

// Counts must be the reference's; a singular value within the promised guard of the tolerance,
// other than a tie, may go either way. Returns how many were doubtful.
inline int64_t ExpectEqualCounts(const Batch& batch, int64_t head, double tau,
                                 const PositionCounts& counts) {
  EXPECT_EQ(static_cast<int64_t>(counts.counts.size()), batch.length());
  EXPECT_EQ(counts.counts.front(), 0);
  const double ratio = batch.norms[head] / tau;
  const double guard = std::max(1e-9, 1e-16 * ratio * ratio);
  int64_t doubtful = 0;
  for (size_t p = 0; p < batch.positions.size(); ++p) {
    const int64_t i = batch.positions[p];
    const std::vector<double>& sigma = batch.sigma[head][p];
    if (!counts.doubtful.empty() && counts.doubtful[i]) {
      ++doubtful;
    } else if (CountOf(sigma, tau * (1 + 1e-11)) != counts.counts[i]) {
      EXPECT_GE(counts.counts[i], CountOf(sigma, tau * (1 + guard)))
          << batch.names[head] << " at tolerance " << tau << " position " << i;
      EXPECT_LE(counts.counts[i], CountOf(sigma, tau * (1 - guard)))
          << batch.names[head] << " at tolerance " << tau << " position " << i;
    }
  }
  return doubtful;
}

inline int64_t ExpectEqualCounts(const Batch& batch, const TensorSpectraRequest& request,
                                 const std::vector<Spectrum>& spectra) {
  int64_t doubtful = 0;
  for (size_t t = 0; t < request.tolerances.size(); ++t) {
    for (int64_t head = 0; head < batch.heads(); ++head) {
      doubtful += ExpectEqualCounts(batch, head, request.tolerances[t][head],
                                    spectra[head].tolerance_counts[t]);
    }
  }
  return doubtful;
}

// Shares of each head's norm; 1 for zero operators.
inline TensorSpectraRequest RelativeTolerances(const Batch& batch,
                                               const std::vector<double>& shares) {
  TensorSpectraRequest request;
  for (const double share : shares) {
    auto& of_heads = request.tolerances.emplace_back();
    for (const double norm : batch.norms) of_heads.push_back(norm > 0 ? share * norm : 1);
  }
  return request;
}

}  // namespace ess::linalg
