#include "server/jobs/job_files.h"

#include <system_error>

namespace ess::jobs {

void JobFiles::RemoveWork() const {
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) return;
  for (const auto& entry : entries) {
    if (entry.path() == result() || entry.path() == run()) continue;
    std::filesystem::remove_all(entry.path(), error);
  }
}

int64_t JobFiles::Bytes() const {
  std::error_code error;
  int64_t bytes = 0;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) return 0;
  for (const auto& entry : entries) {
    const auto size = entry.file_size(error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace ess::jobs
