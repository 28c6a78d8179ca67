// The header of a safetensors file.
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "fmt/format.h"
#include "server/checkpoint/safetensors_file.h"
#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {
namespace {

std::string File(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
  return file + header + std::string(data_bytes, '\1');
}

// A file in memory.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("input", MFD_CLOEXEC)) {}
  ~MemoryFile() { close(descriptor_); }
  bool Fill(const uint8_t* data, size_t size) const {
    return ftruncate(descriptor_, 0) == 0 &&
           pwrite(descriptor_, data, size, 0) == static_cast<ssize_t>(size);
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  const int descriptor_;
};

}  // namespace

std::vector<std::string> Seeds() {
  return {
      File("{}", 0),
      File(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
      File(R"({"__metadata__":{"format":"pt"},)"
           R"("a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},)"
           R"("b":{"dtype":"F64","shape":[],"data_offsets":[8,16]}})",
           16),
      File(R"({"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]},)"
           R"("four":{"dtype":"F4","shape":[2,1],"data_offsets":[0,1]},)"
           R"("six":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[1,4]}}   )",
           4),
      File(R"({"big":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8),
  };
}

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ess::fuzz::MemoryFile memory;
  if (!memory.Fill(data, size)) return -1;
  const auto file = ess::checkpoint::SafetensorsFile::Open(memory.path(), "input");
  ess::fuzz::CheckAnswer(file.status(), {absl::StatusCode::kDataLoss});
  if (!file.ok()) return 0;
  for (const auto& [name, entry] : (*file)->tensors()) {
    // The header was checked against the file, so this is no more than the input has.
    std::vector<std::byte> bytes(entry.end - entry.begin);
    ess::fuzz::CheckAnswer((*file)->Read(entry, bytes), {});
  }
  return 0;
}
