#include "server/checkpoint/weight_stamp.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "fmt/format.h"

namespace ess::checkpoint {

std::string WeightStamp(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  // Not a range-based loop, whose steps throw.
  for (std::filesystem::directory_iterator file(folder, error), end; !error && file != end;
       file.increment(error)) {
    if (file->path().extension() == ".safetensors") files.push_back(file->path());
  }
  std::sort(files.begin(), files.end());
  std::string stamp;
  for (const std::filesystem::path& file : files) {
    struct stat info {};
    if (stat(file.c_str(), &info) != 0) continue;
    stamp += fmt::format("{} {} {} {} {}.{:09}\n", file.filename().string(), info.st_dev,
                         info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  return stamp;
}

}  // namespace ess::checkpoint
