#include "server/checkpoint/weight_map.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/json_file.h"
#include "server/base/page_tensor.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/checkpoint/safetensors_file.h"

namespace ess::checkpoint {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr char kConsolidatedFile[] = "consolidated.safetensors";
constexpr size_t kMaxNamesInMessage = 5;

std::optional<at::ScalarType> WeightType(const std::string& dtype) {
  if (dtype == "F64") return at::kDouble;
  if (dtype == "F32") return at::kFloat;
  if (dtype == "F16") return at::kHalf;
  if (dtype == "BF16") return at::kBFloat16;
  return std::nullopt;
}

const char* TypeName(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    default:
      return "float32";
  }
}

// A shard must be the plain name of a file that is really in the folder, no link to elsewhere.
absl::Status CheckShard(const std::filesystem::path& folder, const std::string& name) {
  std::error_code error;
  const bool plain = !name.empty() && name.find('/') == std::string::npos && name != "..";
  if (!plain ||
      !std::filesystem::is_regular_file(std::filesystem::symlink_status(folder / name, error))) {
    return absl::DataLossError(
        fmt::format("{}: '{}' is not a file in the folder", kIndexFile, name));
  }
  return absl::OkStatus();
}

struct Weight {
  const SafetensorsFile* file;
  TensorEntry entry;
  bool taken = false;
};

}  // namespace

struct WeightMap::State {
  c10::Device device = c10::kCPU;
  bool as_stored = false;
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  std::map<std::string, Weight, std::less<>> weights;
  int64_t bytes = 0;
  int64_t parameters = 0;
  std::map<at::ScalarType, int64_t> bytes_by_type;

  at::ScalarType ResidentType(at::ScalarType stored) const {
    return as_stored && stored != at::kDouble ? stored : at::kFloat;
  }

  absl::Status AddFile(const std::filesystem::path& folder, const std::string& name,
                       const std::set<std::string>* wanted) {
    ESS_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(folder / name, name));
    for (const auto& [tensor, entry] : file->tensors()) {
      if (wanted != nullptr && !wanted->contains(tensor)) continue;
      weights.emplace(tensor, Weight{.file = file.get(), .entry = entry});
    }
    if (wanted != nullptr) {
      for (const std::string& tensor : *wanted) {
        if (!file->tensors().contains(tensor)) {
          return absl::DataLossError(fmt::format("{}: tensor '{}' is missing; {} says it is here",
                                                 name, tensor, kIndexFile));
        }
      }
    }
    files.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status AddShards(const std::filesystem::path& folder) {
    ESS_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(folder / kIndexFile, kIndexFile));
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
      return absl::DataLossError(fmt::format("{}: has no object weight_map", kIndexFile));
    }
    std::map<std::string, std::set<std::string>> tensors_of_shard;
    for (const auto& [tensor, shard] : index["weight_map"].items()) {
      if (!shard.is_string()) {
        return absl::DataLossError(
            fmt::format("{}: the shard of '{}' is not a string", kIndexFile, tensor));
      }
      tensors_of_shard[shard.get<std::string>()].insert(tensor);
    }
    for (const auto& [shard, tensors] : tensors_of_shard) {
      ESS_RETURN_IF_ERROR(CheckShard(folder, shard));
      ESS_RETURN_IF_ERROR(AddFile(folder, shard, &tensors));
    }
    return absl::OkStatus();
  }
};

WeightMap::WeightMap(std::unique_ptr<State> state) : state_(std::move(state)) {}
WeightMap::WeightMap(WeightMap&&) = default;
WeightMap::~WeightMap() = default;

absl::StatusOr<WeightMap> WeightMap::Open(const std::filesystem::path& folder,
                                          std::string_view device, bool as_stored) {
  auto state = std::make_unique<State>();
  ESS_RETURN_IF_ERROR(CatchTorch("device", [&] {
    state->device = c10::Device(std::string(device));
    return absl::OkStatus();
  }));
  state->as_stored = as_stored;
  std::error_code error;
  if (std::filesystem::exists(folder / kSingleFile, error)) {
    ESS_RETURN_IF_ERROR(state->AddFile(folder, kSingleFile, nullptr));
  } else if (std::filesystem::exists(folder / kIndexFile, error)) {
    ESS_RETURN_IF_ERROR(state->AddShards(folder));
  } else if (std::filesystem::exists(folder / kConsolidatedFile, error)) {
    ESS_RETURN_IF_ERROR(state->AddFile(folder, kConsolidatedFile, nullptr));
  } else {
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin", error);
    return absl::DataLossError(
        fmt::format("there is no {} and no {}; {}", kSingleFile, kIndexFile,
                    pickled ? "pytorch_model.bin is not read, convert it to safetensors"
                            : "the option random_init serves a config.json alone"));
  }
  return WeightMap(std::move(state));
}

void WeightMap::StripPrefix(const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes) {
    std::map<std::string, Weight, std::less<>> stripped;
    bool found = false;
    for (auto& [name, weight] : state_->weights) {
      const bool has_prefix = name.starts_with(prefix);
      found |= has_prefix;
      stripped.emplace(has_prefix ? name.substr(prefix.size()) : name, weight);
    }
    if (!found) continue;
    state_->weights = std::move(stripped);
    return;
  }
}

void WeightMap::IgnoreSuffix(std::string_view suffix) {
  std::erase_if(state_->weights,
                [suffix](const auto& weight) { return weight.first.ends_with(suffix); });
}

void WeightMap::IgnorePrefix(std::string_view prefix) {
  std::erase_if(state_->weights,
                [prefix](const auto& weight) { return weight.first.starts_with(prefix); });
}

bool WeightMap::Has(std::string_view name) const {
  return state_->weights.find(name) != state_->weights.end();
}

absl::StatusOr<at::Tensor> WeightMap::Take(std::string_view name, at::IntArrayRef shape) {
  const auto found = state_->weights.find(name);
  if (found == state_->weights.end()) {
    return absl::DataLossError(
        fmt::format("tensor '{}' is missing; expected shape [{}]", name, fmt::join(shape, ", ")));
  }
  Weight& weight = found->second;
  const TensorEntry& entry = weight.entry;
  if (at::IntArrayRef(entry.shape) != shape) {
    return absl::DataLossError(fmt::format(
        "{}: tensor '{}' has shape [{}]; config.json implies [{}]", weight.file->display_name(),
        name, fmt::join(entry.shape, ", "), fmt::join(shape, ", ")));
  }
  const std::optional<at::ScalarType> stored = WeightType(entry.dtype);
  if (!stored) {
    return absl::DataLossError(
        fmt::format("{}: tensor '{}' has dtype {}; weights are F64, F32, F16 or BF16",
                    weight.file->display_name(), name, entry.dtype));
  }
  const at::ScalarType type = state_->ResidentType(*stored);
  at::Tensor tensor;
  ESS_RETURN_IF_ERROR(CatchTorch(fmt::format("tensor '{}'", name), [&]() -> absl::Status {
    // Memory of our own: aligned, and the file may go.
    tensor = EmptyInPages(shape, *stored);
    const absl::Status read =
        weight.file->Read(entry, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
    if (!read.ok()) {
      return absl::DataLossError(fmt::format("{}: tensor '{}': {}", weight.file->display_name(),
                                             name, std::string(read.message())));
    }
    if (state_->device.is_cpu() && type != *stored) {
      tensor = EmptyInPages(shape, type).copy_(tensor);
    } else {
      tensor = tensor.to(state_->device, type);
    }
    return absl::OkStatus();
  }));
  weight.taken = true;
  state_->bytes += static_cast<int64_t>(tensor.nbytes());
  state_->parameters += tensor.numel();
  state_->bytes_by_type[type] += static_cast<int64_t>(tensor.nbytes());
  return tensor;
}

absl::Status WeightMap::CheckAllTaken() const {
  std::vector<std::string> left;
  for (const auto& [name, weight] : state_->weights) {
    if (!weight.taken) left.push_back(name);
  }
  if (left.empty()) return absl::OkStatus();
  const size_t count = left.size();
  if (count > kMaxNamesInMessage) left.resize(kMaxNamesInMessage);
  return absl::DataLossError(fmt::format("{} unexpected tensor{}: {}{}", count,
                                         count == 1 ? "" : "s", fmt::join(left, ", "),
                                         count > left.size() ? ", ..." : ""));
}

int64_t WeightMap::LoadBytes() const {
  int64_t resident = 0;
  int64_t largest_converted = 0;
  for (const auto& [name, weight] : state_->weights) {
    const auto bytes = static_cast<int64_t>(weight.entry.end - weight.entry.begin);
    const std::optional<at::ScalarType> stored = WeightType(weight.entry.dtype);
    if (!stored) continue;  // Refused when it is taken.
    const at::ScalarType type = state_->ResidentType(*stored);
    // In this order, so that a hostile header's sizes do not overflow: its file has those bytes.
    resident += bytes / static_cast<int64_t>(at::elementSize(*stored)) *
                static_cast<int64_t>(at::elementSize(type));
    if (type != *stored) largest_converted = std::max(largest_converted, bytes);
  }
  return resident + largest_converted;
}

int64_t WeightMap::bytes() const { return state_->bytes; }
int64_t WeightMap::parameters() const { return state_->parameters; }

std::string WeightMap::dtype() const {
  const auto largest =
      std::max_element(state_->bytes_by_type.begin(), state_->bytes_by_type.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return largest == state_->bytes_by_type.end() ? "float32" : TypeName(largest->first);
}

}  // namespace ess::checkpoint
