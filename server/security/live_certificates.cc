#include "server/security/live_certificates.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::security {
namespace {

// A file in memory with this text.
absl::StatusOr<FileDescriptor> MemoryFile(const std::string& text) {
  FileDescriptor file(memfd_create("ess_certificates", MFD_CLOEXEC));
  if (file.get() < 0) {
    return absl::InternalError(
        fmt::format("certificates: cannot make a file in memory: {}", std::strerror(errno)));
  }
  for (size_t written = 0; written < text.size();) {
    const ssize_t bytes = write(file.get(), text.data() + written, text.size() - written);
    if (bytes < 0) {
      return absl::InternalError(
          fmt::format("certificates: cannot write in memory: {}", std::strerror(errno)));
    }
    written += static_cast<size_t>(bytes);
  }
  return file;
}

// Makes the descriptor `file` one of another file, for everybody who opens its path from now on.
absl::Status Replace(const FileDescriptor& file, const std::string& text) {
  ESS_ASSIGN_OR_RETURN(const FileDescriptor replacement, MemoryFile(text));
  if (dup3(replacement.get(), file.get(), O_CLOEXEC) < 0) {
    return absl::InternalError(fmt::format("certificates: {}", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

LiveCertificates::LiveCertificates(CertificateFiles files)
    : files_(std::move(files)),
      identity_(memfd_create("ess_certificates", MFD_CLOEXEC)),
      client_ca_(memfd_create("ess_certificates", MFD_CLOEXEC)) {}

std::string LiveCertificates::PathOf(const FileDescriptor& file) {
  return fmt::format("/proc/self/fd/{}", file.get());
}

absl::StatusOr<std::unique_ptr<LiveCertificates>> LiveCertificates::Open(
    const CertificateFiles& files, absl::Duration interval) {
  auto live = std::unique_ptr<LiveCertificates>(new LiveCertificates(files));
  LiveCertificates* const raw = live.get();
  std::vector<std::filesystem::path> watched = {files.certificate, files.key};
  if (!files.client_ca.empty()) watched.push_back(files.client_ca);
  // Watched first: a change between the two is seen.
  live->watch_ =
      std::make_unique<FileWatch>(std::move(watched), interval, [raw] { raw->Reload(); });
  ESS_ASSIGN_OR_RETURN(const std::string summary, live->Update());
  ESS_LOG(info, "TLS: {}", summary);
  return live;
}

absl::StatusOr<std::string> LiveCertificates::Update() {
  ESS_ASSIGN_OR_RETURN(const Certificates certificates, ReadCertificates(files_));
  ESS_RETURN_IF_ERROR(Replace(identity_, certificates.identity));
  ESS_RETURN_IF_ERROR(Replace(client_ca_, certificates.client_ca));
  return certificates.summary;
}

void LiveCertificates::Reload() {
  const absl::StatusOr<std::string> summary = Update();
  if (!summary.ok()) {
    ESS_LOG(error, "{}; the certificates before it stay in force",
            std::string(summary.status().message()));
    return;
  }
  ESS_LOG(info, "TLS: new connections get {}", *summary);
}

}  // namespace ess::security
