// The second execution of the mathematics of DenseSpectra, for accelerators: many dense operators
// at once, in LibTorch calls that every device has. Nothing of it knows a kind of device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/tensor_chunk.h"

namespace ess::linalg {

// As SpectrumRequest; tolerances differ between heads.
struct TensorSpectraRequest {
  std::vector<std::vector<double>> tolerances;  // [T][H], each > 0, in the units of the operator.
  std::vector<double> fractions;
  bool spectral_norms = false;
  bool entropies = false;
};

// H operators of one length on one device. Works in chunks of heads, and of tolerances or shifts,
// as large as a budget of bytes allows; float64 on the device, whatever the operators are in.
//
// Counts do not depend on the budget, nor on the other heads, unless a singular value is as close
// to a tolerance as BlockSpectra::Compute allows. Entropies depend on them by rounding (1e-7):
// libraries choose kernels by the shape of a batch. On a CPU no more is taken than BytesNeeded or
// 64 MiB: larger chunks are slower there, and a single call of LibTorch would outlast a caller's
// patience.
//
// Errors of all methods: kResourceExhausted  the device's memory ran out;
//                        kCancelled, kDeadlineExceeded  on a CPU within 200 ms;
//                        kInternal  LibTorch failed, for instance on a device without float64.
// Thread-compatible. On a CPU all work is on the calling thread: between calls as short as these,
// LibTorch's threads would wait for each other most of the time.
class TensorSpectra {
 public:
  // On a CPU larger chunks are slower.
  static constexpr int64_t kMostCpuBytes = int64_t{64} << 20;

  // `maps` is [.., L, L] of any floating dtype on any device, L >= 1; shared, not copied, and not
  // to be changed. Its strictly lower triangles are the operators; the rest is not read, but for
  // the diagonal, which must be finite too. `heads`: which of them are meant, in any order; they
  // are the heads 0 .. H - 1 of all methods.
  // Errors: kInternal           an entry is not finite: its head in `maps`, row and column.
  //         kResourceExhausted  the budget is too small for one head and one tolerance; the message
  //                             has both numbers. BytesNeeded() tells beforehand.
  static absl::StatusOr<TensorSpectra> Create(at::Tensor maps, std::span<const int64_t> heads,
                                              int64_t byte_budget,
                                              const CancellationToken& cancellation);
  // The same for all heads of `maps`.
  static absl::StatusOr<TensorSpectra> Create(at::Tensor maps, int64_t byte_budget,
                                              const CancellationToken& cancellation);

  // The smallest budget for operators of this length: about 60 L^2 bytes.
  static int64_t BytesNeeded(int64_t length);

  int64_t heads() const { return static_cast<int64_t>(heads_.size()); }
  int64_t length() const { return maps_.size(1); }

  // max_i sigma_1(H_i) of each head [H], as BlockSpectra::MaxSpectralNorm; NaN for a head that
  // needs another route, because no stable pivots prove it.
  absl::StatusOr<std::vector<double>> MaxSpectralNorms(double accuracy,
                                                       const CancellationToken& cancellation);

  // ||H_i||_F [H][L].
  absl::StatusOr<std::vector<std::vector<double>>> FrobeniusNorms(
      const CancellationToken& cancellation);

  // One spectrum for each head [H], as BlockSpectra::Compute. What another route has to answer is
  // marked: counts as doubtful, norms and entropies as NaN. Counts at tolerances below 1e-7 of the
  // head's largest sigma_1 are among them.
  // Cost: for each head about 1 L^3 operations for each tolerance, 20 L^3 for entropies, 10 to 60
  //       L^3 for spectral norms, and L^4 / 16 for each fraction.
  absl::StatusOr<std::vector<Spectrum>> Compute(const TensorSpectraRequest& request,
                                                const CancellationToken& cancellation);

  // As BlockSpectra::SingularValues, of one head.
  absl::StatusOr<std::vector<double>> SingularValues(int64_t head, int64_t position) const;

 private:
  TensorSpectra(at::Tensor maps, std::span<const int64_t> heads, int64_t byte_budget)
      : maps_(std::move(maps)), heads_(heads.begin(), heads.end()), byte_budget_(byte_budget) {}

  // ||H_i||_F of the chunk's heads in their scales [heads, L], found once.
  std::vector<double> NormsOf(int64_t first, const TensorChunk& chunk);
  // Sets scales_.
  absl::Status Measure(const CancellationToken& cancellation);
  // Heads [first, last) as float64.
  at::Tensor Maps(int64_t first, int64_t last) const;
  // Their strictly lower triangles, divided by their scales.
  at::Tensor Scaled(int64_t first, int64_t last) const;
  // Calls work(first head, chunk) for all chunks in turn, with LibTorch's errors caught.
  absl::Status ForEachChunk(
      int64_t shifts, const CancellationToken& cancellation,
      absl::FunctionRef<absl::Status(int64_t first, const TensorChunk& chunk)> work);

  absl::Status ComputeChunk(const TensorSpectraRequest& request, int64_t first,
                            const TensorChunk& chunk, const CancellationToken& cancellation,
                            std::span<Spectrum> spectra);

  at::Tensor maps_;
  std::vector<int64_t> heads_;  // [H]
  int64_t byte_budget_;
  std::optional<TensorChunk> whole_;  // All heads, once they are loaded, if they go together.
  std::vector<double> scales_;  // [H]: powers of two; the largest entry / scale is in [0.5, 1).
  std::vector<std::vector<double>> frobenius_norms_;  // [H], empty where not known yet.
  std::vector<double> max_norms_;  // [H] in the units of the scales; empty: not known yet ...
  double norm_accuracy_ = 0;       // ... and if, to this accuracy.
};

}  // namespace ess::linalg
