// One safetensors file, read-only. Read, never mapped: a mapped file that gets shorter kills the
// process that looks at it.
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
  // Opens the file and checks all of its header, in the order of the reference library: sizes,
  // JSON, types, that the tensors tile the data without holes or overlap, and that shape and bytes
  // agree. Nothing is allocated for a tensor. `display_name` stands in messages.
  // Errors: kDataLoss  names the file, the tensor, what was found and what was expected.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::filesystem::path& path,
                                                               const std::string& display_name);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& display_name() const { return display_name_; }
  const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }

  // Copies the bytes of a tensor to `out`, which has their size.
  // Errors: kDataLoss  the file cannot be read, or has become shorter; lacks the file's name.
  absl::Status Read(const TensorEntry& entry, std::span<std::byte> out) const;

 private:
  explicit SafetensorsFile(std::string display_name) : display_name_(std::move(display_name)) {}
  absl::Status OpenDescriptor(const std::filesystem::path& path);
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
  absl::Status ParseHeader();
  absl::Status CheckTiling() const;

  const std::string display_name_;
  int descriptor_ = -1;
  uint64_t file_size_ = 0;
  uint64_t data_offset_ = 0;
  std::map<std::string, TensorEntry> tensors_;
};

}  // namespace ess::checkpoint
