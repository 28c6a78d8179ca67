#include "server/checkpoint/weight_digest.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "fmt/format.h"
#include "server/base/sha256.h"
#include "server/base/status_macros.h"

namespace ess::checkpoint {
namespace {

// The name, a zero byte, and the contents.
absl::Status AddFile(const std::filesystem::path& file, Sha256& digest) {
  const std::string name = file.filename().string();
  digest.Add(name.c_str(), name.size() + 1);
  std::vector<char> buffer(1 << 20);
  std::ifstream stream(file, std::ios::binary);
  while (stream) {
    stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    digest.Add(buffer.data(), static_cast<size_t>(stream.gcount()));
  }
  if (!stream.eof()) return absl::DataLossError(fmt::format("{}: cannot be read", name));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> WeightDigest(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());

  Sha256 digest;
  for (const std::filesystem::path& file : files) ESS_RETURN_IF_ERROR(AddFile(file, digest));
  return digest.Hex();
}

absl::StatusOr<std::string> InitialWeightDigest(const std::filesystem::path& config,
                                                uint64_t seed) {
  Sha256 digest;
  ESS_RETURN_IF_ERROR(AddFile(config, digest));
  digest.Add(fmt::format("{} {}", seed, kInitialWeightsVersion));
  return digest.Hex();
}

}  // namespace ess::checkpoint
