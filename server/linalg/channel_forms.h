// Bidiagonal forms of the blocks around 8 positions of a group of channels: any number of questions
// about their singular values, at the price of about 15 eliminations.
#pragma once

#include <cstdint>

#include "server/linalg/channel_group.h"
#include "server/linalg/channel_kernels.h"
#include "server/linalg/channel_window.h"

namespace ess::linalg {

// Thread-compatible.
class ChannelForms {
 public:
  explicit ChannelForms(ChannelGroup& group) : group_(group) {}

  // To be called after each Load of the group.
  void Reset();

  // Makes the forms of H_i, i in [first_position, first_position + 8), of the window that the group
  // visits; does nothing when they are there already.
  void MakeBlocks(int64_t first_position, const ChannelWindow& window);
  // The forms of the past factors of the same positions.
  void MakePasts(int64_t first_position, const ChannelWindow& window);

  // Of position first_position + offset; thresholds, results [lanes], in the units of the group.
  // Counts are at most `rank_bound`.
  void Count(int64_t offset, const double* thresholds, int64_t rank_bound, double* counts) const;
  void LargestSingularValues(int64_t offset, double* top) const;
  void Entropies(int64_t offset, double* entropies, double* changes) const;

  int64_t memory_bytes() const;

 private:
  enum class Kind { kNone, kBlocks, kPasts };

  // Gates, inputs and outputs (times the gates they pass) of padded N states each.
  void ReadPositions();
  // past_factors_ of the 8 positions.
  void MakePastFactors(const ChannelWindow& window);
  void Bidiagonalize(int64_t offset, const double* triangle);
  int64_t StatesSize() const { return group_.layout().padded_states() * group_.lanes(); }
  const double* SquaresOf(int64_t offset) const {
    return squares_.get() + offset * 2 * StatesSize();
  }

  ChannelGroup& group_;
  int64_t states_ = 0;  // That the memory below is made for.
  Kind kind_ = Kind::kNone;
  int64_t first_position_ = -1;
  LaneMemory gates_, inputs_, outputs_;  // [8, padded N]
  LaneMemory past_factors_;              // [8] triangles.
  LaneMemory future_factor_;
  LaneMemory core_;
  LaneMemory squares_;        // [8, 2 padded N]
  LaneMemory squared_norms_;  // [8]
};

}  // namespace ess::linalg
