#include "server/checkpoint/weight_digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::checkpoint {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    ESS_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void Add(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }

  // The name, a zero byte, and the contents.
  absl::Status AddFile(const std::filesystem::path& file) {
    const std::string name = file.filename().string();
    Add(name.c_str(), name.size() + 1);
    std::vector<char> buffer(1 << 20);
    std::ifstream stream(file, std::ios::binary);
    while (stream) {
      stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      Add(buffer.data(), static_cast<size_t>(stream.gcount()));
    }
    if (!stream.eof()) return absl::DataLossError(fmt::format("{}: cannot be read", name));
    return absl::OkStatus();
  }

  std::string Hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string hex;
    for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

absl::StatusOr<std::string> WeightDigest(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());

  Sha256 digest;
  for (const std::filesystem::path& file : files) ESS_RETURN_IF_ERROR(digest.AddFile(file));
  return digest.Hex();
}

absl::StatusOr<std::string> InitialWeightDigest(const std::filesystem::path& config,
                                                uint64_t seed) {
  Sha256 digest;
  ESS_RETURN_IF_ERROR(digest.AddFile(config));
  const std::string drawn = fmt::format("{} {}", seed, kInitialWeightsVersion);
  digest.Add(drawn.data(), drawn.size());
  return digest.Hex();
}

}  // namespace ess::checkpoint
