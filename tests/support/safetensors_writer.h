// Writes small safetensors files for tests, good ones and, byte by byte, bad ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ess::testing {

struct TensorToWrite {
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  std::string bytes;
};

inline TensorToWrite Float32Tensor(std::vector<int64_t> shape, const std::vector<float>& values) {
  return {"F32",
          std::move(shape),
          {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}};
}

// header: length prefix + JSON; data behind it.
inline void WriteRawSafetensors(const std::filesystem::path& path, const std::string& header,
                                const std::string& data) {
  const uint64_t size = header.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << header << data;
}

inline void WriteSafetensors(const std::filesystem::path& path,
                             const std::map<std::string, TensorToWrite>& tensors) {
  std::string data;
  std::vector<std::string> entries;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back(fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                  name, tensor.dtype, fmt::join(tensor.shape, ","), data.size(),
                                  data.size() + tensor.bytes.size()));
    data += tensor.bytes;
  }
  WriteRawSafetensors(path, fmt::format("{{{}}}", fmt::join(entries, ",")), data);
}

// A fresh, empty folder of the test's own.
inline std::filesystem::path FreshFolder(const std::filesystem::path& parent,
                                         const std::string& name) {
  const std::filesystem::path folder = parent / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace ess::testing
