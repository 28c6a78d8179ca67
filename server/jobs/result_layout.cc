#include "server/jobs/result_layout.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/jobs/python_json.h"

namespace ess::jobs {
namespace {

// The names of all routes, joined.
constexpr int64_t kMaxRouteBytes = 256;
constexpr int64_t kMaxCountBytes = 20;

// Order of the format's reference library: by dtype from the largest, then by name.
int Rank(const std::string& dtype) {
  static const std::map<std::string, int> ranks = {
      {"I64", 0}, {"F32", 1}, {"I32", 2}, {"U8", 3}, {"BOOL", 4}};
  return ranks.at(dtype);
}

int64_t BytesOf(const std::string& dtype) {
  static const std::map<std::string, int64_t> bytes = {
      {"I64", 8}, {"F32", 4}, {"I32", 4}, {"U8", 1}, {"BOOL", 1}};
  return bytes.at(dtype);
}

int64_t Product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string Prefix(const JobLayer& layer) { return "layer." + layer.name + "/"; }

// Of one prompt: [heads, positions], without the axis that is reduced, K last.
std::vector<int64_t> ValueShape(const JobPlan& plan, const JobLayer& layer,
                                const JobMeasure& measure) {
  std::vector<int64_t> shape;
  if (plan.reduce != "heads") shape.push_back(std::ssize(layer.heads));
  if (plan.reduce != "positions") shape.push_back(std::ssize(plan.positions));
  if (measure.count > 0) shape.push_back(measure.count);
  return shape;
}

template <typename T>
void AppendList(const std::vector<T>& items, auto append, std::string& out) {
  out += '[';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append(items[i]);
  }
  out += ']';
}

// {"measure": value, ...}, sorted by the measures' names.
void AppendByMeasure(const JobPlan& plan, auto append, std::string& out) {
  std::vector<size_t> order(plan.measures.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return plan.measures[a].name < plan.measures[b].name; });
  out += '{';
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0) out += ", ";
    AppendJsonString(plan.measures[order[i]].name, out);
    out += ": ";
    append(order[i]);
  }
  out += '}';
}

void AppendFloors(const std::vector<float>& floors, size_t heads, std::string& out) {
  out += '[';
  for (size_t first = 0; first < floors.size(); first += heads) {
    out += first > 0 ? ", [" : "[";
    for (size_t h = 0; h < heads; ++h) {
      if (h > 0) out += ", ";
      AppendJsonNumber(static_cast<double>(floors[first + h]), out);
    }
    out += ']';
  }
  out += ']';
}

}  // namespace

ResultLayout::ResultLayout(const JobPlan& plan, int64_t max_inline_bytes) : plan_(plan) {
  int64_t floors = 0;
  for (const JobLayer& layer : plan.layers) floors += plan.prompts() * std::ssize(layer.heads);
  const int64_t inline_bytes = plan.prompts_json_bytes + floors * (kMaxNumberBytes + 2);
  schema_ = inline_bytes <= max_inline_bytes ? 1 : 2;

  const int64_t prompts = plan.prompts();
  const int64_t positions = std::ssize(plan.positions);
  const int64_t longest = *std::max_element(plan.lengths.begin(), plan.lengths.end());
  AddTensor("positions", "I32", {positions});
  AddTensor("lengths", "I32", {prompts});
  AddTensor("token_ids", "I64", {prompts, longest});
  if (schema_ == 2) AddTensor("prompts", "U8", {plan.prompts_json_bytes});
  for (const JobLayer& layer : plan.layers) {
    const int64_t heads = std::ssize(layer.heads);
    for (const JobMeasure& measure : plan.measures) {
      std::vector<int64_t> shape = ValueShape(plan, layer, measure);
      shape.insert(shape.begin(), prompts);
      AddTensor(Prefix(layer) + "ess/" + measure.name, "F32", shape);
      if (plan.certify) AddTensor(Prefix(layer) + "certain/" + measure.name, "BOOL", shape);
    }
    AddTensor(Prefix(layer) + "tss", "I32", {prompts, positions});
    AddTensor(Prefix(layer) + "heads", "I32", {heads});
    AddTensor(Prefix(layer) + "channels", "I32", {heads});
    if (schema_ == 2) AddTensor(Prefix(layer) + "noise_floors", "F32", {prompts, heads});
  }
  PlaceTensors();
}

void ResultLayout::AddTensor(std::string name, std::string dtype, std::vector<int64_t> shape) {
  const int64_t bytes = Product(shape) * BytesOf(dtype);
  tensors_.push_back({.name = std::move(name),
                      .dtype = std::move(dtype),
                      .shape = std::move(shape),
                      .offset = 0,
                      .bytes = bytes});
}

void ResultLayout::PlaceTensors() {
  std::sort(tensors_.begin(), tensors_.end(), [](const ResultTensor& a, const ResultTensor& b) {
    return std::pair(Rank(a.dtype), a.name) < std::pair(Rank(b.dtype), b.name);
  });
  for (ResultTensor& tensor : tensors_) {
    tensor.offset = data_bytes_;
    data_bytes_ += tensor.bytes;
  }
  header_bytes_ = (LongestHeader() + 7) / 8 * 8;
  std::map<std::string, int64_t> offsets;
  for (const ResultTensor& tensor : tensors_) {
    offsets[tensor.name] = data_offset() + tensor.offset;
  }
  int64_t scratch = (file_bytes() + 7) / 8 * 8;
  for (const JobLayer& layer : plan_.layers) {
    ess_.emplace_back();
    certain_.emplace_back();
    for (const JobMeasure& measure : plan_.measures) {
      ess_.back().push_back(offsets.at(Prefix(layer) + "ess/" + measure.name));
      if (plan_.certify) {
        certain_.back().push_back(offsets.at(Prefix(layer) + "certain/" + measure.name));
      }
    }
    if (schema_ == 2) {
      floors_.push_back(offsets.at(Prefix(layer) + "noise_floors"));
      continue;
    }
    floors_.push_back(scratch);
    scratch += plan_.prompts() * std::ssize(layer.heads) * static_cast<int64_t>(sizeof(float));
  }
  floors_end_ = scratch;
}

int64_t ResultLayout::working_bytes() const {
  return schema_ == 1 ? std::max(floors_end_, file_bytes()) : file_bytes();
}

int64_t ResultLayout::OffsetOf(const std::string& tensor) const {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                  [&](const ResultTensor& t) { return t.name == tensor; });
  ESS_CHECK(found != tensors_.end());
  return data_offset() + found->offset;
}

int64_t ResultLayout::FloorsOffset(int64_t layer) const { return floors_[layer]; }

int64_t ResultLayout::RowValues(int64_t layer, int64_t measure) const {
  return Product(ValueShape(plan_, plan_.layers[layer], plan_.measures[measure]));
}

std::string ResultLayout::Manifest(const std::vector<LayerNotes>& notes,
                                   const std::vector<std::vector<float>>& floors,
                                   const std::string& prompts_json) const {
  std::string out = R"({"layers": [)";
  for (size_t l = 0; l < plan_.layers.size(); ++l) {
    const JobLayer& layer = plan_.layers[l];
    out += l > 0 ? R"(, {"below_noise_floor": )" : R"({"below_noise_floor": )";
    AppendByMeasure(
        plan_, [&](size_t m) { out += std::to_string(notes[l].below_noise_floor[m]); }, out);
    out += fmt::format(R"(, "layer_index": {}, "name": )", layer.layer_index);
    AppendJsonString(layer.name, out);
    if (schema_ == 1) {
      out += R"(, "noise_floors": )";
      AppendFloors(floors[l], layer.heads.size(), out);
    }
    out += R"(, "operator_class": )";
    AppendJsonString(layer.operator_class, out);
    out += R"(, "routes": )";
    AppendByMeasure(
        plan_, [&](size_t m) { AppendJsonString(notes[l].routes[m], out); }, out);
    out += '}';
  }
  out += R"(], "measures": )";
  AppendList(
      plan_.measures, [&](const JobMeasure& m) { AppendJsonString(m.name, out); }, out);
  out += R"(, "model": {)";
  for (const auto& [key, value] : plan_.model) {
    if (out.back() != '{') out += ", ";
    AppendJsonString(key, out);
    out += ": ";
    AppendJsonString(value, out);
  }
  out += R"(}, "options": {)";
  if (plan_.certify) out += R"("certify": true)";
  if (plan_.horizon) {
    out += fmt::format(R"({}"horizon": {})", plan_.certify ? ", " : "", *plan_.horizon);
  }
  if (!plan_.reduce.empty()) {
    out += plan_.certify || plan_.horizon ? R"(, "reduce": )" : R"("reduce": )";
    AppendJsonString(plan_.reduce, out);
  }
  out += '}';
  if (schema_ == 1) out += R"(, "prompts": )" + prompts_json;
  out += fmt::format(R"(, "schema": {}, "versions": {{"server": )", schema_);
  AppendJsonString(plan_.server_version, out);
  return out + "}}";
}

std::string ResultLayout::TensorTable() const {
  std::string out;
  for (const ResultTensor& tensor : tensors_) {
    out += ',';
    AppendJsonString(tensor.name, out);
    out += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.dtype,
                       fmt::join(tensor.shape, ","), tensor.offset, tensor.offset + tensor.bytes);
  }
  return out;
}

int64_t ResultLayout::LongestHeader() const {
  const LayerNotes empty{.routes = std::vector<std::string>(plan_.measures.size()),
                         .below_noise_floor = std::vector<int64_t>(plan_.measures.size())};
  // Without what the manifest gains, but for the prompts: that is counted at its longest. A
  // character of a string in a string takes up to twice its bytes.
  const std::vector<LayerNotes> notes(plan_.layers.size(), empty);
  const std::vector<std::vector<float>> floors(plan_.layers.size());
  std::string manifest;
  AppendJsonString(Manifest(notes, floors, ""), manifest);
  int64_t gained = 0;
  if (schema_ == 1) {
    gained += 2 * plan_.prompts_json_bytes;
    for (const JobLayer& layer : plan_.layers) {
      gained += plan_.prompts() * (std::ssize(layer.heads) * (kMaxNumberBytes + 2) + 4);
    }
  }
  gained +=
      std::ssize(plan_.layers) * std::ssize(plan_.measures) * (kMaxRouteBytes + kMaxCountBytes);
  return std::ssize(manifest) + gained + std::ssize(TensorTable()) + 64;
}

std::string ResultLayout::Header(const std::vector<LayerNotes>& notes,
                                 const std::vector<std::vector<float>>& floors,
                                 const std::string& prompts_json) const {
  std::string json = R"({"__metadata__":{"manifest":)";
  AppendJsonString(Manifest(notes, floors, prompts_json), json);
  json += '}' + TensorTable() + '}';
  ESS_CHECK(std::ssize(json) <= header_bytes_);
  json.resize(static_cast<size_t>(header_bytes_), ' ');
  std::string header;
  for (int byte = 0; byte < 8; ++byte) {
    header += static_cast<char>(static_cast<uint64_t>(header_bytes_) >> (8 * byte));
  }
  return header + json;
}

}  // namespace ess::jobs
