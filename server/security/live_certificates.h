// The certificates of a running server: checked at the start, and replaced when their files change.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/open_under.h"
#include "server/security/certificates.h"
#include "server/security/file_watch.h"

namespace ess::security {

// gRPC 1.51 can watch certificate files, but takes whatever is in them: half a file, or a key of
// another certificate, ends every handshake until somebody mends it. So it watches files of ours,
// which live in memory only, hold what has been checked, and are swapped as a whole.
class LiveCertificates {
 public:
  // Reads and checks the files, and looks for changes every `interval`. A change that is wrong is
  // logged, and the certificates before it stay.
  // Errors: those of ReadCertificates.
  static absl::StatusOr<std::unique_ptr<LiveCertificates>> Open(const CertificateFiles& files,
                                                                absl::Duration interval);

  // For who watches: certificate chain and key in one file, so that they always belong together.
  std::string identity_path() const { return PathOf(identity_); }
  std::string client_ca_path() const { return PathOf(client_ca_); }

 private:
  explicit LiveCertificates(CertificateFiles files);
  static std::string PathOf(const FileDescriptor& file);
  absl::StatusOr<std::string> Update();
  void Reload();

  const CertificateFiles files_;
  FileDescriptor identity_;
  FileDescriptor client_ca_;
  std::unique_ptr<FileWatch> watch_;  // The last member: it calls Reload.
};

}  // namespace ess::security
