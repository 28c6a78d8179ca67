// All windows of a recurrence, with the square-root factors between them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/recurrent_window.h"
#include "server/linalg/square_root_factor.h"
#include "server/linalg/state_space.h"

namespace ess::linalg {

// Memory: about 12 L N doubles. Thread-compatible.
class RecurrentWindows {
 public:
  // `width` positions go together, a multiple of 8; 0: chosen by the number of states.
  RecurrentWindows(std::unique_ptr<const StateSpace> space, int64_t width);

  // Makes the windows, unless they are there. Errors: kCancelled, kDeadlineExceeded.
  absl::Status Prepare(const CancellationToken& cancellation);

  const StateSpace& space() const { return *space_; }
  int64_t length() const { return space_->length(); }
  int64_t width() const { return width_; }  // Of all windows but the last.
  // REQUIRES, as all below: a successful Prepare.
  const std::vector<RecurrentWindow>& windows() const { return all_.windows; }
  Arena& arena() { return arena_; }

  // A window cut into narrower ones, `width` positions each. Cost: as Prepare for its positions.
  // Errors: kCancelled, kDeadlineExceeded.
  absl::StatusOr<std::vector<RecurrentWindow>> Split(const RecurrentWindow& window, int64_t width,
                                                     const CancellationToken& cancellation);

  // Of H_i in descending order: min(i, L - i, N) of them, right to about 1e-14 of the largest; none
  // for H_i = 0. An SVD of R_O R_C^T at the position. Cost: 2 W N^2 + 4 N^3 operations.
  std::vector<double> SingularValuesAt(int64_t position);

  // As BlockSpectra::CausalRanks. Needs no Prepare.
  absl::StatusOr<std::vector<int32_t>> CausalRanks(const CancellationToken& cancellation);

 private:
  // Windows with the factors at their ends.
  struct Chain {
    std::vector<RecurrentWindow> windows;
    std::vector<SquareRootFactor> past;    // R_C at the start of each window.
    std::vector<SquareRootFactor> future;  // R_O at the end of each window.
  };

  // Cuts the positions [first, last) into windows, `past` being R_C at `first` and `future` R_O at
  // `last`.
  absl::StatusOr<Chain> MakeChain(int64_t first, int64_t last, int64_t width,
                                  const SquareRootFactor& past, const SquareRootFactor& future,
                                  const CancellationToken& cancellation);

  // Carries a factor over `count` positions from `first` on.
  void Carry(TimeDirection direction, int64_t first, int64_t count, SquareRootFactor& factor);

  const std::unique_ptr<const StateSpace> space_;
  const int64_t width_;
  Chain all_;
  Arena arena_;
  StateWindow part_;  // Scratch of Carry.
};

}  // namespace ess::linalg
