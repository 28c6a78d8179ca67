#include "server/rpc/profile_messages.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/rpc/encoded_message.h"
#include "server/rpc/measure_codec.h"
#include "server/rpc/message_size.h"
#include "server/rpc/proto_codec.h"

namespace ess::rpc {
namespace {

// Of a slice beside its values and flags: what describes it, and tags and lengths around.
constexpr size_t kMostSliceBytes = 128;
// Of all slices of a block, each with the above.
constexpr size_t kBlockBytes = kMaxMessageBytes - 64;

// Sends blocks of slices, as full as the limit of messages allows: each message costs its reader
// and gRPC a turn.
class BlockWriter {
 public:
  explicit BlockWriter(MessageWriter write) : write_(write) {}

  // Adds `values`, which begin at `first_element` of the tensor that `slice` describes. `certain`:
  // one flag for each, or none. Both outlive the next Flush.
  absl::Status Add(const v1::EssSlice& slice, int64_t first_element, std::span<const float> values,
                   std::span<const uint8_t> certain) {
    const size_t value_bytes = sizeof(float) + (certain.empty() ? 0 : 1);
    for (size_t begin = 0; begin < values.size();) {
      if (bytes_ + kMostSliceBytes + value_bytes > kBlockBytes) ESS_RETURN_IF_ERROR(Flush());
      bytes_ += kMostSliceBytes;
      const size_t count = std::min((kBlockBytes - bytes_) / value_bytes, values.size() - begin);
      v1::EssSlice description = slice;
      description.set_first_element(first_element + static_cast<int64_t>(begin));
      slices_.push_back({std::move(description), values.subspan(begin, count),
                         certain.empty() ? certain : certain.subspan(begin, count)});
      begin += count;
      bytes_ += count * value_bytes;
    }
    return absl::OkStatus();
  }

  absl::Status Flush() {
    if (bytes_ == 0) return absl::OkStatus();
    bytes_ = 0;
    return write_(EncodeEssBlock(std::exchange(slices_, {})));
  }

 private:
  MessageWriter write_;
  std::vector<SliceView> slices_;
  size_t bytes_ = 0;
};

}  // namespace

absl::Status WriteHeader(const ProfileJob& job, const ProfilePlan& plan,
                         const residency::ModelStatus& model, const std::string& server_version,
                         MessageWriter write) {
  v1::ProfileResponse message;
  v1::ProfileHeader* header = message.mutable_header();
  header->set_request_id(job.request_id);
  EncodeModel(model, /*with_layers=*/false, header->mutable_model());
  for (const PlannedLayer& layer : plan.layers) {
    EncodeMixer(model.description->mixers[layer.mixer], header->add_layers());
    EncodeIndices(layer.heads, header->add_heads());
  }
  for (const Measure& measure : job.measures) {
    EncodeMeasure(measure, header->add_measures());
    header->add_measure_names(FormatMeasure(measure));
  }
  EncodeIndices(plan.all_positions, header->mutable_positions());
  EncodeMeasureOptions(job.options, job.reduction, header->mutable_options());
  header->set_prompt_count(static_cast<int32_t>(job.prompts.size()));
  header->set_server_version(server_version);
  if (message.ByteSizeLong() > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        fmt::format("heads: the header of the answer would have {} bytes; the limit is {}; select "
                    "fewer layers, "
                    "or heads and positions in longer ranges",
                    message.ByteSizeLong(), kMaxMessageBytes));
  }
  return write(Encode(message));
}

absl::Status WriteTokens(const ProfileJob& job, const ProfilePlan& plan,
                         const std::vector<std::vector<std::string>>& texts, MessageWriter write) {
  for (size_t p = 0; p < plan.token_ids.size(); ++p) {
    const std::vector<int64_t>& ids = plan.token_ids[p];
    size_t begin = 0;
    do {  // One message where there are no ids.
      v1::ProfileResponse message;
      v1::PromptTokens* tokens = message.mutable_tokens();
      tokens->set_prompt(static_cast<int32_t>(p));
      tokens->set_id(job.prompts[p].id);
      tokens->set_length(plan.lengths[p]);
      tokens->set_first_token(static_cast<int64_t>(begin));
      for (size_t bytes = 0; begin < ids.size() && bytes < kPayloadBytes; ++begin) {
        tokens->add_token_ids(ids[begin]);
        bytes += 16;
        if (texts[p].empty()) continue;
        tokens->add_token_texts(texts[p][begin]);
        bytes += texts[p][begin].size();
      }
      ESS_RETURN_IF_ERROR(write(Encode(message)));
    } while (begin < ids.size());
  }
  return absl::OkStatus();
}

absl::Status WriteEss(const ProfileJob& job, const ProfilePlan& plan, const EssPiece& piece,
                      MessageWriter write) {
  BlockWriter blocks(write);
  const int64_t head_count = std::ssize(plan.layers[piece.layer].heads);
  const int64_t position_count = std::ssize(plan.positions[piece.prompt]);
  for (size_t m = 0; m < job.measures.size(); ++m) {
    v1::EssSlice slice;
    slice.set_layer(static_cast<int32_t>(piece.layer));
    slice.set_prompt(static_cast<int32_t>(piece.prompt));
    slice.set_measure(static_cast<int32_t>(m));
    for (const int64_t size :
         ValueShape(job.reduction, head_count, position_count, job.measures[m])) {
      slice.add_shape(size);
    }
    const int64_t first_element =
        piece.first_head * ValuesPerHead(job.reduction, position_count, job.measures[m]);
    std::span<const uint8_t> certain;
    if (job.options.certify) certain = piece.ess.certain[m];
    ESS_RETURN_IF_ERROR(blocks.Add(slice, first_element, piece.ess.values[m], certain));
  }
  return blocks.Flush();
}

absl::Status WriteSummary(const ProfileSummary& summary, MessageWriter write) {
  v1::ProfileResponse message;
  size_t bytes = 0;
  for (size_t l = 0; l < summary.layers.size(); ++l) {
    const LayerRecord& record = summary.layers[l];
    bool described = false;
    for (size_t begin = 0; begin < record.noise_floors.size();) {
      v1::LayerNotes* notes = message.mutable_summary()->add_layers();
      notes->set_layer(static_cast<int32_t>(l));
      notes->set_first_floor(static_cast<int64_t>(begin));
      if (!std::exchange(described, true)) {
        for (size_t m = 0; m < record.routes.size(); ++m) {
          v1::MeasureNotes* measure = notes->add_measures();
          measure->set_measure(static_cast<int32_t>(m));
          measure->set_route(record.routes[m]);
          measure->set_below_noise_floor(record.below_noise_floor[m]);
          bytes += 16 + record.routes[m].size();
        }
      }
      for (; begin < record.noise_floors.size() && bytes < kPayloadBytes; ++begin) {
        notes->add_noise_floors(static_cast<float>(record.noise_floors[begin]));
        bytes += sizeof(float);
      }
      if (bytes >= kPayloadBytes) {
        ESS_RETURN_IF_ERROR(write(Encode(message)));
        message.Clear();
        bytes = 0;
      }
    }
  }
  v1::ProfileSummary* last = message.mutable_summary();
  for (const auto& [stage, seconds] : summary.stage_seconds) {
    v1::StageSeconds* entry = last->add_stages();
    entry->set_stage(stage);
    entry->set_seconds(seconds);
  }
  last->set_peak_host_bytes(summary.peak_host_bytes);
  last->set_last(true);
  return write(Encode(message));
}

}  // namespace ess::rpc
