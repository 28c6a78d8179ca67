// Entropies of the singular values at every position, for a chunk of heads.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/tensor_chunk.h"

namespace ess::linalg {

// Fills entropies and entropy_errors of each head's spectrum [H] by the rule of entropy_rule.h: one
// run of its shifts at the head's largest ||H_i||_F, then at most 3 more at the largest of the
// positions that are far below it. What is left after these is NaN.
// `frobenius` [H, L] as FrobeniusNorms gives it. Errors: kCancelled, kDeadlineExceeded.
absl::Status FillEntropies(const TensorChunk& chunk, std::span<const double> frobenius,
                           std::span<Spectrum> spectra, const CancellationToken& cancellation);

}  // namespace ess::linalg
