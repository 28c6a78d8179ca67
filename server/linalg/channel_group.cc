#include "server/linalg/channel_group.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

// Inputs and outputs whose largest is within 2^+-40 are left as they are: fourth powers of their
// products stay far from both ends of the range of doubles.
constexpr int kHarmlessExponent = 40;

// Operations of one window, roughly, for the meter.
int64_t FactorWork(const WindowLayout& layout) {
  return layout.lanes() * layout.padded_states() * (20 * layout.padded_states() + 400);
}
int64_t DescriptionWork(const WindowLayout& layout) {
  return layout.lanes() * layout.padded_states() * layout.padded_states() *
         (2 * layout.padded_states() + 40);
}

int ExponentOf(double largest) {
  int exponent = 0;
  if (largest > 0) std::frexp(largest, &exponent);
  return std::abs(exponent) <= kHarmlessExponent ? 0 : exponent;
}

}  // namespace

absl::Status ChannelGroup::Load(const ChannelRecurrence& recurrence, int64_t channel,
                                const CancellationToken& cancellation) {
  ESS_CHECK(recurrence.states() >= 1 && recurrence.states() <= kMaxStates);
  ESS_CHECK(recurrence.length() >= 1 && channel >= 0 && channel < recurrence.channels());
  const bool same_shape = layout_.states() == recurrence.states() && length_ == recurrence.length();
  recurrence_ = &recurrence;
  channel_ = channel;
  if (!same_shape) Allocate();
  input_exponent_.assign(lanes(), 0);
  output_exponent_.assign(lanes(), 0);
  WorkMeter meter(cancellation);
  ESS_RETURN_IF_ERROR(RunForward(meter));
  if (NormalizeExtremeLanes()) ESS_RETURN_IF_ERROR(RunForward(meter));
  return absl::OkStatus();
}

void ChannelGroup::Allocate() {
  layout_ = WindowLayout(recurrence_->states(), lanes());
  length_ = recurrence_->length();
  window_count_ = (length_ + kWindow - 1) / kWindow;
  const int64_t triangle = layout_.TriangleSize();
  const int64_t factor_bytes = 2 * triangle * static_cast<int64_t>(sizeof(double));
  segment_windows_ = std::clamp<int64_t>(factor_bytes_ / factor_bytes, 1, window_count_);
  segment_count_ = (window_count_ + segment_windows_ - 1) / segment_windows_;

  pasts_ = LaneMemory(segment_windows_ * triangle);
  futures_ = LaneMemory(segment_windows_ * triangle);
  past_borders_ = LaneMemory(segment_count_ * triangle);
  future_borders_ = LaneMemory(segment_count_ * triangle);
  window_ = LaneMemory(layout_.WindowSize());
  for (LaneMemory& source : source_) source = LaneMemory(layout_.SourceSize());
  largest_ = LaneMemory(2 * lanes());
  scratch_ = LaneMemory(kernels_.scratch_size(layout_));
  gathered_.past = LaneMemory(triangle);
  gathered_.future = LaneMemory(triangle);
  for (LaneMemory& source : gathered_.sources) source = LaneMemory(layout_.SourceSize());
  gathered_.zeros = LaneMemory(layout_.SourceSize());
  // States that only fill up the last tile keep for ever the nothing that they start with.
  std::fill(layout_.At(window_.get()).transition + layout_.states() * lanes(),
            layout_.At(window_.get()).transition + layout_.padded_states() * lanes(), 1.0);
}

int64_t ChannelGroup::memory_bytes() const {
  int64_t bytes =
      BytesOf({&pasts_, &futures_, &past_borders_, &future_borders_, &window_, &largest_, &scratch_,
               &gathered_.past, &gathered_.future, &gathered_.zeros});
  for (const LaneMemory& source : source_) bytes += source.bytes();
  for (const LaneMemory& source : gathered_.sources) bytes += source.bytes();
  return bytes;
}

bool ChannelGroup::NormalizeExtremeLanes() {
  bool extreme = false;
  for (int64_t lane = 0; lane < lanes(); ++lane) {
    input_exponent_[lane] = ExponentOf(largest_[lane]);
    output_exponent_[lane] = ExponentOf(largest_[lanes() + lane]);
    extreme |= input_exponent_[lane] != 0 || output_exponent_[lane] != 0;
  }
  return extreme;
}

int64_t ChannelGroup::WindowsIn(int64_t segment) const {
  return std::min(segment_windows_, window_count_ - segment * segment_windows_);
}

void ChannelGroup::CopyTriangle(const double* from, double* to) const {
  std::memcpy(to, from, layout_.TriangleSize() * sizeof(double));
}

void ChannelGroup::ScaleSource(int64_t lane, int64_t lanes, double* b, double* c) const {
  for (int64_t l = 0; l < lanes; ++l) {
    const int input = input_exponent_[lane + l];
    const int output = output_exponent_[lane + l];
    if (input == 0 && output == 0) continue;
    for (int64_t entry = l; entry < kWindow * layout_.states() * lanes; entry += lanes) {
      b[entry] = std::ldexp(b[entry], -input);
      c[entry] = std::ldexp(c[entry], -output);
    }
  }
}

void ChannelGroup::ReadSource(int64_t first_position) {
  recurrence_->FillLanes(channel_, lanes(), first_position, kWindow, source_[0].get(),
                         source_[1].get(), source_[2].get());
  ScaleSource(0, lanes(), source_[1].get(), source_[2].get());
}

WindowSource ChannelGroup::CurrentSource() const {
  return {.a = source_[0].get(),
          .b = source_[1].get(),
          .c = source_[2].get(),
          .reads_before = recurrence_->reads_before()};
}

ChannelWindow ChannelGroup::WindowAt(int64_t slot) const {
  ChannelWindow window = layout_.At(window_.get());
  window.past = Triangle(pasts_, slot);
  window.future = Triangle(futures_, slot);
  return window;
}

absl::Status ChannelGroup::RunForward(WorkMeter& meter) {
  std::fill_n(largest_.get(), 2 * lanes(), 0.0);
  known_border_ = segment_count_ - 1;
  for (int64_t segment = 0; segment < segment_count_; ++segment) {
    ESS_RETURN_IF_ERROR(MakeResident(segment, meter));
  }
  return absl::OkStatus();
}

absl::Status ChannelGroup::MakeResident(int64_t segment, WorkMeter& meter) {
  const int64_t count = WindowsIn(segment);
  CopyTriangle(Triangle(past_borders_, segment), Triangle(pasts_, 0));
  for (int64_t slot = 0; slot < count; ++slot) {
    if (!meter.Continue(FactorWork(layout_))) return meter.status();
    const int64_t index = segment * segment_windows_ + slot;
    const ChannelWindow window = WindowAt(slot);
    ReadSource(index * kWindow);
    kernels_.read_past(layout_, CurrentSource(), window, largest_.get());
    if (index + 1 == window_count_) break;
    double* next =
        slot + 1 < count ? Triangle(pasts_, slot + 1) : Triangle(past_borders_, segment + 1);
    kernels_.append_past(layout_, window.past, window.transition, window.input, next);
  }
  resident_ = segment;
  known_slot_ = count;
  return absl::OkStatus();
}

bool ChannelGroup::FutureIsKnownBefore(int64_t slot) const {
  if (slot > 0) return known_slot_ < slot;
  return resident_ == 0 || known_border_ < resident_;
}

void ChannelGroup::MoveFuture(int64_t slot, const ChannelWindow& window) {
  double* before =
      slot > 0 ? Triangle(futures_, slot - 1) : Triangle(future_borders_, resident_ - 1);
  kernels_.append_future(layout_, window.future, window.transition, window.output, before);
  (slot > 0 ? known_slot_ : known_border_) = (slot > 0 ? slot : resident_) - 1;
}

absl::Status ChannelGroup::MakeFutures(int64_t segment, WorkMeter& meter) {
  return ForEachWindowOf(
      segment, Detail::kFactors, [](int64_t) { return false; },
      [](int64_t, const ChannelWindow&) {}, meter);
}

absl::Status ChannelGroup::ForEachWindowOf(
    int64_t segment, Detail detail, absl::FunctionRef<bool(int64_t)> wanted,
    absl::FunctionRef<void(int64_t, const ChannelWindow&)> visit, WorkMeter& meter) {
  if (segment != resident_) ESS_RETURN_IF_ERROR(MakeResident(segment, meter));
  const int64_t count = WindowsIn(segment);
  if (known_slot_ == count) {
    CopyTriangle(Triangle(future_borders_, segment), Triangle(futures_, count - 1));
    known_slot_ = count - 1;
  }
  for (int64_t slot = count; slot-- > 0;) {
    const int64_t first_position = (segment * segment_windows_ + slot) * kWindow;
    const bool visited = wanted(first_position);
    const bool moves = !FutureIsKnownBefore(slot);
    if (!visited && !moves) continue;
    if (!meter.Continue(FactorWork(layout_))) return meter.status();
    const ChannelWindow window = WindowAt(slot);
    ReadSource(first_position);
    kernels_.read_window(layout_, CurrentSource(), window);
    if (moves) MoveFuture(slot, window);
    if (!visited) continue;
    if (detail == Detail::kDescription) {
      if (!meter.Continue(DescriptionWork(layout_))) return meter.status();
      kernels_.describe_window(layout_, window, scratch_.get());
    }
    visit(first_position, window);
  }
  return meter.status();
}

absl::Status ChannelGroup::ForEachWindow(
    Detail detail, absl::FunctionRef<bool(int64_t)> wanted,
    absl::FunctionRef<void(int64_t, const ChannelWindow&)> visit, WorkMeter& meter) {
  for (int64_t segment = segment_count_; segment-- > 0;) {
    ESS_RETURN_IF_ERROR(ForEachWindowOf(segment, detail, wanted, visit, meter));
  }
  return absl::OkStatus();
}

void ChannelGroup::GatherLane(int64_t lane, int64_t position) {
  const int64_t slot = position / kWindow - resident_ * segment_windows_;
  const double* past = Triangle(pasts_, slot);
  const double* future = Triangle(futures_, slot);
  for (int64_t entry = lane; entry < layout_.TriangleSize(); entry += lanes()) {
    gathered_.past[entry] = past[entry];
    gathered_.future[entry] = future[entry];
  }
  double* a = source_[0].get();
  double* b = source_[1].get();
  double* c = source_[2].get();
  recurrence_->FillLanes(channel_ + lane, 1, position / kWindow * kWindow, kWindow, a, b, c);
  ScaleSource(lane, 1, b, c);
  const int64_t before = position % kWindow * layout_.states();
  for (int64_t entry = 0; entry < kWindow * layout_.states(); ++entry) {
    const bool in_past = entry < before;
    const int64_t to = entry * lanes() + lane;
    gathered_.sources[0][to] = in_past ? a[entry] : 1;
    gathered_.sources[1][to] = in_past ? b[entry] : 0;
    gathered_.sources[2][to] = in_past ? 1 : a[entry];
    gathered_.sources[3][to] = in_past ? 0 : c[entry];
  }
}

absl::Status ChannelGroup::CoresAt(std::span<const int64_t> positions, double* core,
                                   WorkMeter& meter) {
  ESS_CHECK(static_cast<int64_t>(positions.size()) == lanes());
  Gathered& g = gathered_;
  for (LaneMemory* factor : {&g.past, &g.future}) {
    std::fill_n(factor->get(), layout_.TriangleSize(), 0.0);
  }
  for (int i = 0; i < 4; ++i) {
    std::fill_n(g.sources[i].get(), layout_.SourceSize(), i % 2 == 0 ? 1.0 : 0.0);
  }
  int64_t lowest = segment_count_;
  for (const int64_t position : positions) {
    ESS_CHECK(position >= 0 && position < length_);
    if (position > 0) lowest = std::min(lowest, SegmentOf(position));
  }
  for (int64_t segment = segment_count_; segment-- > lowest;) {
    const bool leads_to_wanted = segment > lowest && known_border_ >= segment;
    const bool wanted = std::any_of(positions.begin(), positions.end(), [&](int64_t position) {
      return position > 0 && SegmentOf(position) == segment;
    });
    if (!wanted && !leads_to_wanted) continue;
    ESS_RETURN_IF_ERROR(MakeFutures(segment, meter));
    for (int64_t lane = 0; lane < lanes(); ++lane) {
      const int64_t position = positions[lane];
      if (position > 0 && SegmentOf(position) == segment) GatherLane(lane, position);
    }
  }
  if (!meter.Continue(DescriptionWork(layout_))) return meter.status();
  const ChannelWindow window = layout_.At(window_.get());
  const bool reads_before = recurrence_->reads_before();
  kernels_.read_window(
      layout_, {g.sources[0].get(), g.sources[1].get(), g.zeros.get(), reads_before}, window);
  kernels_.append_past(layout_, g.past.get(), window.transition, window.input, g.past.get());
  kernels_.read_window(
      layout_, {g.sources[2].get(), g.zeros.get(), g.sources[3].get(), reads_before}, window);
  kernels_.append_future(layout_, g.future.get(), window.transition, window.output, g.future.get());
  kernels_.lower_product(layout_, g.future.get(), g.past.get(), core);
  return absl::OkStatus();
}

}  // namespace ess::linalg
