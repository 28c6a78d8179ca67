#include "server/linalg/tensor_norms.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"
#include "server/linalg/tensor_counts.h"
#include "server/linalg/tensor_lanczos.h"

namespace ess::linalg {
namespace {

// As in block_norms.cc.
constexpr double kWeakestProof = 1e-7;
constexpr int kMaxRounds = 16;
// Of Lanczos, in units of the square root of the accuracy.
constexpr double kResidual = 0.03;
// The order of magnitude of a norm needs no more.
constexpr int kProbableSteps = 4;

// Windows of positions that share their rows and columns: fewer operations, but smaller products.
constexpr int64_t kWindows = 16;
constexpr int64_t kSmallestWindow = 32;

// Running sums go block by block, within a block by a product with a triangle of ones: libraries'
// own go number by number.
constexpr int64_t kScanBlock = 16;

// [.., R, C] with zeros until `axis`, 1 or 2, has whole blocks.
at::Tensor PadToBlocks(const at::Tensor& x, int64_t axis) {
  const int64_t missing = (kScanBlock - x.size(axis) % kScanBlock) % kScanBlock;
  if (missing == 0) return x;
  return axis == 2 ? at::constant_pad_nd(x, {0, missing})
                   : at::constant_pad_nd(x, {0, 0, 0, missing});
}

at::Tensor TriangleOfOnes(const at::Tensor& like) {
  return at::ones({kScanBlock, kScanBlock}, like.options()).triu();
}

// Sums of x [H, R, C] over the columns up to each one.
at::Tensor SumsFromLeft(const at::Tensor& x) {
  const at::Tensor padded = PadToBlocks(x, 2);
  const at::Tensor sums =
      padded.reshape({x.size(0), x.size(1), -1, kScanBlock}).matmul(TriangleOfOnes(x));
  const at::Tensor before = sums.select(3, kScanBlock - 1).slice(2, 0, -1).cumsum(2);
  sums.slice(2, 1).add_(before.unsqueeze(3));
  return sums.view(padded.sizes()).slice(2, 0, x.size(2));
}

// Sums of x [H, R, C] over the rows from each one on.
at::Tensor SumsFromBelow(const at::Tensor& x) {
  const at::Tensor padded = PadToBlocks(x, 1);
  const at::Tensor sums =
      TriangleOfOnes(x).matmul(padded.reshape({x.size(0), -1, kScanBlock, x.size(2)}));
  const at::Tensor after = sums.select(2, 0).slice(1, 1).flip({1}).cumsum(1).flip({1});
  sums.slice(1, 0, -1).add_(after.unsqueeze(2));
  return sums.view(padded.sizes()).slice(1, 0, x.size(1));
}

// Sums a matrix' strictly lower triangle [H, L, L] over the rows: the numbers of positions 1 ... L.
at::Tensor SumBelow(const at::Tensor& terms) { return terms.tril(-1).sum({1}); }

// One candidate position for each head.
struct Candidates {
  std::vector<int64_t> positions;
  std::vector<double> sigma;  // sigma_1 there.
  at::Tensor right;           // [H, L, 1]: its right singular vector, zeros after the position.
  at::Tensor row_mask;        // [H, L, 1]: rows from the position on.
};

absl::StatusOr<Candidates> MeasureAt(const TensorChunk& chunk, std::vector<int64_t> positions,
                                     std::span<const double> frobenius,
                                     const LanczosOptions& options,
                                     const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  std::vector<double> scales;
  for (size_t head = 0; head < positions.size(); ++head) {
    const double norm = frobenius[head * length + positions[head]];
    scales.push_back(norm > 0 ? norm : 1);
  }
  const at::Tensor matrices = chunk.matrices();
  const at::Tensor index = at::arange(length, matrices.options()).unsqueeze(0);
  const at::Tensor starts =
      at::tensor(positions, at::kDouble).to(matrices.device()).unsqueeze(1);  // [H, 1]
  const at::Tensor row_mask = index.ge(starts).to(at::kDouble).unsqueeze(2);
  const MaskedMatrices problem{.matrices = matrices,
                               .row_mask = row_mask,
                               .column_mask = 1 - row_mask,
                               .scales = chunk.OnDevice(scales, {chunk.heads(), 1})};
  TopSingularValues top;
  ESS_RETURN_IF_ERROR(FindTopSingularValues(problem, options, cancellation, top));
  return Candidates{.positions = std::move(positions),
                    .sigma = std::move(top.sigma),
                    .right = top.right,
                    .row_mask = row_mask};
}

// Lower bounds of sigma_1(H_i) [H, L] from the vectors x and y of one block of each head: ||H_i x||
// / ||x|| with the first i entries of x, and ||H_i^T y|| / ||y|| with the entries of y from i on.
std::vector<double> BoundsElsewhere(const TensorChunk& chunk, const Candidates& candidates) {
  const at::Tensor matrices = chunk.matrices();
  const at::Tensor x = candidates.right;                           // [H, L, 1]
  const at::Tensor y = matrices.bmm(x).mul_(candidates.row_mask);  // [H, L, 1]
  const auto ratio = [](const at::Tensor& squares, const at::Tensor& norms) {
    return at::where(norms > 0, (squares / norms).sqrt(), 0.0);
  };
  // Entry [r, i - 1] of the running sums is row r of H_i x.
  const at::Tensor images = SumsFromLeft(matrices * x.mT()).square_();
  const at::Tensor right = ratio(SumBelow(images), x.squeeze(2).square().cumsum(1));
  // Entry [i, c] of the sums from below is column c of H_i^T y.
  const at::Tensor below = SumsFromBelow(matrices * y).square_();
  const at::Tensor left =
      ratio(below.tril(-1).sum({2}), y.squeeze(2).square().flip({1}).cumsum(1).flip({1}));
  at::Tensor bounds = left;
  bounds.slice(1, 1).copy_(at::maximum(left.slice(1, 1), right.slice(1, 0, -1)));
  return OnHost(bounds);
}

int64_t LargestOf(std::span<const double> numbers) {
  return std::max_element(numbers.begin(), numbers.end()) - numbers.begin();
}

// The search of MaxBlockSpectralNorm, for heads side by side.
struct NormSearch {
  int64_t head;  // In the chunk.
  int64_t candidate;
  double best = 0;
  std::vector<double> lower;  // [L]
  bool proved = false;
  bool given_up = false;
};

// Lanczos at the candidates until no other position promises more, or rounds run out.
absl::Status ImproveCandidates(const TensorChunk& chunk, std::span<const double> frobenius,
                               uint64_t round, double accuracy, std::span<NormSearch*> searches,
                               const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  std::vector<int64_t> heads;
  std::vector<int64_t> positions;
  std::vector<double> norms;
  for (const NormSearch* search : searches) {
    heads.push_back(search->head);
    positions.push_back(search->candidate);
    const auto of_head = frobenius.subspan(search->head * length, length);
    norms.insert(norms.end(), of_head.begin(), of_head.end());
  }
  const TensorChunk selected = chunk.Select(heads);
  ESS_ASSIGN_OR_RETURN(const Candidates candidates,
                       MeasureAt(selected, positions, norms,
                                 {.seed = round,
                                  .with_vectors = true,
                                  .largest_residual = kResidual * std::sqrt(accuracy)},
                                 cancellation));
  const std::vector<double> bounds = BoundsElsewhere(selected, candidates);
  for (size_t k = 0; k < searches.size(); ++k) {
    NormSearch& search = *searches[k];
    search.best = std::max(search.best, candidates.sigma[k]);
    search.lower[search.candidate] = std::max(search.lower[search.candidate], candidates.sigma[k]);
    for (int64_t i = 1; i < length; ++i) {
      search.lower[i] = std::max(search.lower[i], bounds[k * length + i]);
    }
    search.candidate = LargestOf(search.lower);
  }
  return absl::OkStatus();
}

// Asks the tree for singular values above the best ones.
absl::Status ProveBest(const TensorChunk& chunk, std::span<NormSearch*> searches, double accuracy,
                       const CancellationToken& cancellation) {
  std::vector<int64_t> heads;
  std::vector<double> taus;
  std::vector<double> norms;
  for (NormSearch* search : searches) {
    search->best = std::max(search->best, search->lower[search->candidate]);
    heads.push_back(search->head);
    taus.push_back(search->best * (1 + accuracy / 2));
    norms.push_back(search->best);
  }
  ESS_ASSIGN_OR_RETURN(const std::vector<BlockCounts> counts,
                       NudgedCounts(chunk.Select(heads), taus, norms, cancellation));
  for (size_t k = 0; k < searches.size(); ++k) {
    NormSearch& search = *searches[k];
    search.given_up = counts[k].uncertainty > kWeakestProof;
    search.proved = !search.given_up;
    for (int64_t i = 1; i < chunk.length() && !search.given_up; ++i) {
      if (counts[k].counts[i] == 0) continue;
      if (search.proved || search.lower[i] > search.lower[search.candidate]) search.candidate = i;
      search.proved = false;
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<double> FrobeniusNorms(const TensorChunk& chunk) {
  const at::Tensor squares = SumsFromLeft(chunk.matrices().square());
  // Entry [r, i - 1] is the square of row r of H_i.
  return OnHost(at::constant_pad_nd(SumBelow(squares).slice(1, 0, -1), {1, 0}).sqrt_());
}

absl::StatusOr<std::vector<double>> ProbableSpectralNorms(const TensorChunk& chunk,
                                                          std::span<const double> frobenius,
                                                          const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  if (length == 1) return std::vector<double>(chunk.heads(), 0.0);
  std::vector<int64_t> positions;
  for (int64_t head = 0; head < chunk.heads(); ++head) {
    positions.push_back(std::max<int64_t>(1, LargestOf(frobenius.subspan(head * length, length))));
  }
  ESS_ASSIGN_OR_RETURN(
      Candidates candidates,
      MeasureAt(chunk, positions, frobenius, {.max_steps = kProbableSteps}, cancellation));
  return std::move(candidates.sigma);
}

absl::StatusOr<std::vector<double>> MaxSpectralNorms(const TensorChunk& chunk,
                                                     std::span<const double> frobenius,
                                                     double accuracy,
                                                     const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  std::vector<NormSearch> searches;
  for (int64_t head = 0; head < chunk.heads(); ++head) {
    const auto norms = frobenius.subspan(head * length, length);
    NormSearch& search = searches.emplace_back(NormSearch{
        .head = head, .candidate = LargestOf(norms), .lower = std::vector<double>(length, 0.0)});
    search.proved = norms[search.candidate] == 0;
  }
  for (int round = 0; round < kMaxRounds; ++round) {
    std::vector<NormSearch*> open;
    for (NormSearch& search : searches) {
      if (!search.proved && !search.given_up) open.push_back(&search);
    }
    if (open.empty()) break;
    ESS_RETURN_IF_ERROR(ImproveCandidates(chunk, frobenius, round, accuracy, open, cancellation));
    std::erase_if(open, [accuracy](const NormSearch* search) {
      return search->lower[search->candidate] > search->best * (1 + accuracy);
    });
    if (!open.empty()) ESS_RETURN_IF_ERROR(ProveBest(chunk, open, accuracy, cancellation));
  }
  std::vector<double> result;
  for (const NormSearch& search : searches) result.push_back(search.proved ? search.best : NAN);
  return result;
}

absl::StatusOr<std::vector<double>> SpectralNorms(const TensorChunk& chunk,
                                                  std::span<const double> frobenius,
                                                  const CancellationToken& cancellation) {
  const int64_t length = chunk.length();
  const int64_t heads = chunk.heads();
  std::vector<double> result(heads * length, 0.0);
  const int64_t window = std::max(kSmallestWindow, (length + kWindows - 1) / kWindows);
  const at::Tensor matrices = chunk.matrices();
  const at::Tensor index = at::arange(length, matrices.options()).unsqueeze(1);  // [L, 1]
  const at::Tensor norms = chunk.OnDevice(frobenius, {heads, length});
  for (int64_t first = 1; first < length; first += window) {
    const int64_t last = std::min(length, first + window);
    // Rows from `first` on and columns before `last` are in some block of the window.
    const at::Tensor positions = index.slice(0, first, last).t();  // [1, P]
    const at::Tensor scales = norms.slice(1, first, last);
    const MaskedMatrices problem{
        .matrices = matrices.slice(1, first).slice(2, 0, last),
        .row_mask = index.slice(0, first).ge(positions).to(at::kDouble).unsqueeze(0),
        .column_mask = index.slice(0, 0, last).lt(positions).to(at::kDouble).unsqueeze(0),
        .scales = at::where(scales > 0, scales, 1.0)};
    TopSingularValues top;
    ESS_RETURN_IF_ERROR(FindTopSingularValues(problem, {}, cancellation, top));
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t column = head * (last - first) + i - first;
        result[head * length + i] = top.converged[column] ? top.sigma[column] : NAN;
      }
    }
  }
  return result;
}

}  // namespace ess::linalg
