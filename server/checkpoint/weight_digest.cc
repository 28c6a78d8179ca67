#include "server/checkpoint/weight_digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "server/base/log.h"

namespace ess::checkpoint {

absl::StatusOr<std::string> WeightDigest(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                  EVP_MD_CTX_free);
  ESS_CHECK(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<char> buffer(1 << 20);
  for (const std::filesystem::path& file : files) {
    const std::string name = file.filename().string();
    EVP_DigestUpdate(context.get(), name.c_str(), name.size() + 1);
    std::ifstream stream(file, std::ios::binary);
    while (stream) {
      stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(stream.gcount()));
    }
    if (!stream.eof()) return absl::DataLossError(fmt::format("{}: cannot be read", name));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace ess::checkpoint
