#include "server/jobs/job_plan.h"

#include <algorithm>
#include <bit>

#include "nlohmann/json.hpp"

namespace ess::jobs {
namespace {

using nlohmann::json;

constexpr int64_t kMaxGroupPrompts = 256;
constexpr int64_t kMaxGroupTokens = 16384;

}  // namespace

int64_t WorkLength(int64_t length) {
  const auto octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length)));
  const int64_t step = std::max<int64_t>(octave / 16, 1);
  return (length + step - 1) / step * step;
}

std::vector<PromptGroup> MakeGroups(const std::vector<int64_t>& lengths) {
  std::vector<PromptGroup> groups;
  int64_t tokens = 0;
  for (int64_t p = 0; p < std::ssize(lengths); ++p) {
    const bool fits = !groups.empty() && groups.back().count < kMaxGroupPrompts &&
                      tokens + lengths[p] <= kMaxGroupTokens;
    if (!fits) {
      groups.push_back({.first = p, .count = 0});
      tokens = 0;
    }
    ++groups.back().count;
    tokens += lengths[p];
  }
  return groups;
}

std::string WritePlan(const JobPlan& plan) {
  json measures = json::array();
  for (const JobMeasure& measure : plan.measures) {
    measures.push_back({{"name", measure.name}, {"count", measure.count}});
  }
  json layers = json::array();
  for (const JobLayer& layer : plan.layers) {
    layers.push_back({{"name", layer.name},
                      {"layer_index", layer.layer_index},
                      {"operator_class", layer.operator_class},
                      {"heads", layer.heads},
                      {"channels", layer.channels},
                      {"state_kind", static_cast<int>(layer.state_size.kind)},
                      {"state_size", layer.state_size.size}});
  }
  json text = {{"model", plan.model},
               {"server_version", plan.server_version},
               {"measures", std::move(measures)},
               {"certify", plan.certify},
               {"reduce", plan.reduce},
               {"layers", std::move(layers)},
               {"positions", plan.positions},
               {"prompts_json_bytes", plan.prompts_json_bytes}};
  text["work"] = json::array();
  for (const auto& [length, seconds] : plan.work) text["work"].push_back({length, seconds});
  if (plan.horizon) text["horizon"] = *plan.horizon;
  return text.dump();
}

absl::StatusOr<JobPlan> ReadPlan(const std::string& text) {
  try {
    const json read = json::parse(text);
    JobPlan plan;
    plan.model = read.at("model").get<std::map<std::string, std::string>>();
    plan.server_version = read.at("server_version").get<std::string>();
    for (const json& measure : read.at("measures")) {
      plan.measures.push_back({.name = measure.at("name").get<std::string>(),
                               .count = measure.at("count").get<int64_t>()});
    }
    if (read.contains("horizon")) plan.horizon = read.at("horizon").get<int64_t>();
    plan.certify = read.at("certify").get<bool>();
    plan.reduce = read.at("reduce").get<std::string>();
    for (const json& layer : read.at("layers")) {
      plan.layers.push_back({.name = layer.at("name").get<std::string>(),
                             .layer_index = layer.at("layer_index").get<int64_t>(),
                             .operator_class = layer.at("operator_class").get<std::string>(),
                             .heads = layer.at("heads").get<std::vector<int64_t>>(),
                             .channels = layer.at("channels").get<std::vector<int64_t>>(),
                             .state_size = {.kind = static_cast<operators::StateSize::Kind>(
                                                layer.at("state_kind").get<int>()),
                                            .size = layer.at("state_size").get<int64_t>()}});
    }
    plan.positions = read.at("positions").get<std::vector<int64_t>>();
    plan.prompts_json_bytes = read.at("prompts_json_bytes").get<int64_t>();
    for (const json& entry : read.at("work")) {
      plan.work[entry.at(0).get<int64_t>()] = entry.at(1).get<double>();
    }
    return plan;
  } catch (const json::exception&) {
    return absl::DataLossError("the job's plan cannot be read from state_dir");
  }
}

}  // namespace ess::jobs
