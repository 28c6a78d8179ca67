// One safetensors file, read-only and mapped into memory.
//
//   bytes 0-7        n, the header's length: unsigned 64-bit little-endian
//   bytes 8..8+n-1   JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...,
//                    "__metadata__": {string: string}}
//   the rest         data; offsets count from byte 8+n, row-major, little-endian
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::checkpoint {

// Element types of weights. Others that the format knows are refused when a tensor is read.
struct TensorEntry {
  std::string dtype;  // "F32", "BF16", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // Offsets into the data.
  uint64_t end = 0;
};

// Immutable, thread-safe.
class SafetensorsFile {
 public:
  // Maps the file and checks all of its header, in the order of the reference library: sizes, JSON,
  // types, that the tensors tile the data without holes or overlap, and that shape and bytes agree.
  // Nothing is allocated for a tensor. `display_name` stands in messages.
  // Errors: kDataLoss  names the file, the tensor, what was found and what was expected.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::filesystem::path& path,
                                                               const std::string& display_name);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& display_name() const { return display_name_; }
  const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }

  // The bytes of a tensor; maybe not aligned to its element.
  std::span<const std::byte> Data(const TensorEntry& entry) const;

  // Says that the pages of a tensor will not be needed again.
  void Forget(const TensorEntry& entry) const;

 private:
  explicit SafetensorsFile(std::string display_name) : display_name_(std::move(display_name)) {}
  absl::Status Map(const std::filesystem::path& path);
  absl::Status ParseHeader();
  absl::Status CheckTiling() const;

  const std::string display_name_;
  const std::byte* file_ = nullptr;
  uint64_t file_size_ = 0;
  uint64_t data_offset_ = 0;
  std::map<std::string, TensorEntry> tensors_;
};

}  // namespace ess::checkpoint
