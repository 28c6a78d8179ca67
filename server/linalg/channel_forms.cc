#include "server/linalg/channel_forms.h"

#include <algorithm>
#include <cstring>

namespace ess::linalg {

void ChannelForms::Reset() {
  kind_ = Kind::kNone;
  const WindowLayout& layout = group_.layout();
  if (states_ == layout.states()) return;
  states_ = layout.states();
  const int64_t positions = kWindow * StatesSize();
  gates_ = LaneMemory(positions);
  inputs_ = LaneMemory(positions);
  outputs_ = LaneMemory(positions);
  past_factors_ = LaneMemory(kWindow * layout.TriangleSize());
  future_factor_ = LaneMemory(layout.TriangleSize());
  core_ = LaneMemory(layout.TriangleSize());
  squares_ = LaneMemory(2 * positions);
  squared_norms_ = LaneMemory(kWindow * group_.lanes());
  std::fill_n(gates_.get(), positions, 1.0);
}

int64_t ChannelForms::memory_bytes() const {
  return BytesOf({&gates_, &inputs_, &outputs_, &past_factors_, &future_factor_, &core_, &squares_,
                  &squared_norms_});
}

void ChannelForms::ReadPositions() {
  const WindowSource source = group_.CurrentSource();
  const int64_t row = group_.layout().states() * group_.lanes();
  for (int64_t t = 0; t < kWindow; ++t) {
    double* gates = gates_.get() + t * StatesSize();
    double* inputs = inputs_.get() + t * StatesSize();
    double* outputs = outputs_.get() + t * StatesSize();
    for (int64_t entry = 0; entry < row; ++entry) {
      const double gate = source.a[t * row + entry];
      gates[entry] = gate;
      inputs[entry] = source.b[t * row + entry];
      outputs[entry] = (source.reads_before ? 1 : gate) * source.c[t * row + entry];
    }
  }
}

void ChannelForms::MakePastFactors(const ChannelWindow& window) {
  const WindowLayout& layout = group_.layout();
  std::memcpy(past_factors_.get(), window.past, layout.TriangleSize() * sizeof(double));
  for (int64_t t = 0; t + 1 < kWindow; ++t) {
    double* factor = past_factors_.get() + t * layout.TriangleSize();
    group_.kernels().append_past_position(layout, factor, gates_.get() + t * StatesSize(),
                                          inputs_.get() + t * StatesSize(),
                                          factor + layout.TriangleSize());
  }
}

void ChannelForms::Bidiagonalize(int64_t offset, const double* triangle) {
  group_.kernels().bidiagonalize(group_.layout(), triangle, group_.scratch(),
                                 squares_.get() + offset * 2 * StatesSize(),
                                 squared_norms_.get() + offset * group_.lanes());
}

void ChannelForms::MakeBlocks(int64_t first_position, const ChannelWindow& window) {
  if (kind_ == Kind::kBlocks && first_position_ == first_position) return;
  kind_ = Kind::kBlocks;
  first_position_ = first_position;
  ReadPositions();
  MakePastFactors(window);
  const WindowLayout& layout = group_.layout();
  const double* future = window.future;
  for (int64_t t = kWindow; t-- > 0;) {
    group_.kernels().append_future_position(layout, future, gates_.get() + t * StatesSize(),
                                            outputs_.get() + t * StatesSize(),
                                            future_factor_.get());
    future = future_factor_.get();
    group_.kernels().lower_product(layout, future, past_factors_.get() + t * layout.TriangleSize(),
                                   core_.get());
    Bidiagonalize(t, core_.get());
  }
}

void ChannelForms::MakePasts(int64_t first_position, const ChannelWindow& window) {
  if (kind_ == Kind::kPasts && first_position_ == first_position) return;
  kind_ = Kind::kPasts;
  first_position_ = first_position;
  ReadPositions();
  MakePastFactors(window);
  for (int64_t t = 0; t < kWindow; ++t) {
    Bidiagonalize(t, past_factors_.get() + t * group_.layout().TriangleSize());
  }
}

void ChannelForms::Count(int64_t offset, const double* thresholds, int64_t rank_bound,
                         double* counts) const {
  group_.kernels().count_singular_values(group_.layout().padded_states(), SquaresOf(offset),
                                         squared_norms_.get() + offset * group_.lanes(), thresholds,
                                         counts);
  for (int64_t lane = 0; lane < group_.lanes(); ++lane) {
    counts[lane] = std::min(counts[lane], static_cast<double>(rank_bound));
  }
}

void ChannelForms::LargestSingularValues(int64_t offset, double* top) const {
  group_.kernels().largest_singular_values(group_.layout().padded_states(), SquaresOf(offset),
                                           squared_norms_.get() + offset * group_.lanes(), top);
}

void ChannelForms::Entropies(int64_t offset, double* entropies, double* changes) const {
  group_.kernels().entropies(group_.layout().padded_states(), SquaresOf(offset),
                             squared_norms_.get() + offset * group_.lanes(), entropies, changes);
}

}  // namespace ess::linalg
