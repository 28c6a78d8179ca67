#include "server/rpc/proto_codec.h"

#include <set>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/rpc/measure_codec.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxPromptIdBytes = 256;

absl::Status CheckPromptCount(const char* field, int64_t count, const RequestLimits& limits) {
  if (count <= limits.max_prompts) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: {} prompts in one request; the limit is {} (max_prompts)", field, count,
                  limits.max_prompts));
}

absl::StatusOr<models::GaussianPrompts> DecodeGaussian(const v1::ProfileRequest& request,
                                                       const RequestLimits& limits) {
  if (!request.prompts().empty()) {
    return absl::InvalidArgumentError(
        "gaussian: the request has prompts too; give prompts or gaussian, not both");
  }
  const v1::GaussianInput& gaussian = request.gaussian();
  if (gaussian.count() < 1) {
    return absl::InvalidArgumentError(
        fmt::format("gaussian.count: {}; at least 1 prompt is needed", gaussian.count()));
  }
  ESS_RETURN_IF_ERROR(CheckPromptCount("gaussian.count", gaussian.count(), limits));
  if (gaussian.length() < 1) {
    return absl::InvalidArgumentError(
        fmt::format("gaussian.length: {}; at least 1 position is needed", gaussian.length()));
  }
  return models::GaussianPrompts{
      .count = gaussian.count(), .length = gaussian.length(), .seed = gaussian.seed()};
}

absl::StatusOr<std::vector<PromptInput>> DecodePrompts(const v1::ProfileRequest& request,
                                                       const RequestLimits& limits) {
  if (request.prompts().empty()) {
    return absl::InvalidArgumentError(
        "prompts: the list is empty; at least 1 prompt is needed, or gaussian instead");
  }
  ESS_RETURN_IF_ERROR(CheckPromptCount("prompts", request.prompts_size(), limits));
  std::vector<PromptInput> prompts;
  std::set<std::string> ids;
  for (int i = 0; i < request.prompts_size(); ++i) {
    const v1::Prompt& prompt = request.prompts(i);
    if (prompt.id().size() > kMaxPromptIdBytes) {
      return absl::InvalidArgumentError(fmt::format("prompts[{}].id: {} bytes; the limit is {}", i,
                                                    prompt.id().size(), kMaxPromptIdBytes));
    }
    PromptInput input{.id = prompt.id().empty() ? std::to_string(i) : prompt.id(), .content = {}};
    if (!ids.insert(input.id).second) {
      return absl::InvalidArgumentError(
          fmt::format("prompts[{}].id: '{}' is the id of another prompt", i, input.id));
    }
    switch (prompt.content_case()) {
      case v1::Prompt::kText:
        if (prompt.text().empty()) {
          return absl::InvalidArgumentError(fmt::format(
              "prompts[{}].text: prompt '{}' is empty; at least 1 token is needed", i, input.id));
        }
        input.content = prompt.text();
        break;
      case v1::Prompt::kTokenIds:
        if (prompt.token_ids().ids().empty()) {
          return absl::InvalidArgumentError(
              fmt::format("prompts[{}].token_ids: prompt '{}' has no tokens; at least 1 is needed",
                          i, input.id));
        }
        input.content =
            std::vector<int64_t>(prompt.token_ids().ids().begin(), prompt.token_ids().ids().end());
        break;
      case v1::Prompt::CONTENT_NOT_SET:
        return absl::InvalidArgumentError(
            fmt::format("prompts[{}]: prompt '{}' has neither text nor token_ids", i, input.id));
    }
    prompts.push_back(std::move(input));
  }
  return prompts;
}

v1::ModelState EncodeState(residency::ModelState state) {
  switch (state) {
    case residency::ModelState::kCold:
      return v1::MODEL_STATE_COLD;
    case residency::ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case residency::ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case residency::ModelState::kUnloading:
      return v1::MODEL_STATE_UNLOADING;
    case residency::ModelState::kFailed:
      return v1::MODEL_STATE_FAILED;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<ProfileJob> DecodeProfileRequest(const v1::ProfileRequest& request,
                                                const RequestLimits& limits) {
  if (request.model().empty()) {
    return absl::InvalidArgumentError("model: the name is empty; ListModels has the names");
  }
  ProfileJob job;
  job.model = request.model();
  if (request.has_gaussian()) {
    ESS_ASSIGN_OR_RETURN(job.gaussian, DecodeGaussian(request, limits));
    for (int64_t i = 0; i < job.gaussian->count; ++i) {
      job.prompts.push_back({.id = std::to_string(i), .content = {}});
    }
  } else {
    ESS_ASSIGN_OR_RETURN(job.prompts, DecodePrompts(request, limits));
  }
  ESS_ASSIGN_OR_RETURN(job.measures, DecodeMeasures(request.measures(), limits.default_measures));
  ESS_ASSIGN_OR_RETURN(job.options, DecodeEssOptions(request.options()));
  ESS_ASSIGN_OR_RETURN(job.reduction, DecodeReduction(request.options()));
  ESS_ASSIGN_OR_RETURN(job.layers.indices, DecodeSelection(request.layers().ranges(), "layers"));
  job.layers.names = {request.layers().names().begin(), request.layers().names().end()};
  ESS_ASSIGN_OR_RETURN(job.heads, DecodeSelection(request.heads().ranges(), "heads"));
  ESS_ASSIGN_OR_RETURN(job.positions, DecodeSelection(request.positions().ranges(), "positions"));
  if (request.has_add_special_tokens()) job.add_special_tokens = request.add_special_tokens();
  return job;
}

absl::StatusOr<admission::Priority> DecodePriority(v1::Priority priority) {
  switch (priority) {
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_NORMAL:
      return admission::Priority::kNormal;
    case v1::PRIORITY_LOW:
      return admission::Priority::kLow;
    default:
      return absl::InvalidArgumentError(
          fmt::format("priority: {} is not a Priority", static_cast<int>(priority)));
  }
}

absl::StatusOr<residency::ModelOptions> DecodeModelOptions(const v1::ModelOptions& options) {
  residency::ModelOptions decoded;
  if (options.has_random_init()) decoded.random_init_seed = options.random_init().seed();
  switch (options.dtype()) {
    case v1::WEIGHT_DTYPE_UNSPECIFIED:
    case v1::WEIGHT_DTYPE_FLOAT32:
      break;
    case v1::WEIGHT_DTYPE_AS_STORED:
      if (options.has_random_init()) {
        return absl::InvalidArgumentError(
            "options.dtype: AS_STORED is the checkpoint's, and random_init has none; FLOAT32 is "
            "what it draws");
      }
      decoded.as_stored = true;
      break;
    default:
      return absl::InvalidArgumentError(
          fmt::format("options.dtype: {} is not a WeightDtype", static_cast<int>(options.dtype())));
  }
  decoded.device = options.device();
  decoded.pinned = options.pinned();
  return decoded;
}

void EncodeModel(const residency::ModelStatus& model, bool with_layers, v1::Model* message) {
  message->set_name(model.name);
  message->set_state(EncodeState(model.state));
  message->set_reason(model.reason);
  message->set_architecture(model.architecture);
  v1::ModelOptions* options = message->mutable_options();
  if (model.options.random_init_seed) {
    options->mutable_random_init()->set_seed(*model.options.random_init_seed);
  }
  options->set_dtype(model.options.as_stored ? v1::WEIGHT_DTYPE_AS_STORED
                                             : v1::WEIGHT_DTYPE_FLOAT32);
  options->set_device(model.options.device);
  options->set_pinned(model.options.pinned);
  if (model.description == nullptr) return;
  const models::ModelDescription& description = *model.description;
  message->set_device(description.device);
  message->set_dtype(description.dtype);
  message->set_weight_bytes(description.weight_bytes);
  message->set_parameters(description.parameters);
  message->set_vocabulary_size(description.vocabulary_size);
  message->set_max_positions(description.max_positions);
  message->set_hidden_size(description.hidden_size);
  message->set_has_tokenizer(model.has_tokenizer);
  message->set_weight_digest(model.weight_digest);
  if (!with_layers) return;
  for (const models::Mixer& mixer : description.mixers) EncodeMixer(mixer, message->add_layers());
}

void EncodeMixer(const models::Mixer& mixer, v1::MixingOperator* message) {
  message->set_name(mixer.name);
  message->set_layer_index(static_cast<int32_t>(mixer.layer_index));
  message->set_operator_class(mixer.operator_class);
  message->set_head_count(static_cast<int32_t>(mixer.head_count));
  for (int64_t channels : mixer.channels) message->add_channels(static_cast<int32_t>(channels));
  EncodeStateSize(mixer.state_size, message->mutable_state_size());
}

}  // namespace ess::rpc
