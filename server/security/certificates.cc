#include "server/security/certificates.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/security/file_watch.h"

namespace ess::security {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

template <typename T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Certificate = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, BioDeleter>;

// Of the file that is being checked.
absl::Status Wrong(const char* field, const std::filesystem::path& path, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{}: '{}' {}", field, path.string(), what));
}

Bio Open(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// All certificates of a text; none when one does not parse.
std::vector<Certificate> ParseCertificates(const std::string& pem) {
  const Bio bio = Open(pem);
  std::vector<Certificate> found;
  ERR_clear_error();
  while (Certificate next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    found.push_back(std::move(next));
  }
  // The end of the text is an error like any other, but for its reason.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) found.clear();
  ERR_clear_error();
  return found;
}

// An encrypted key would ask for its password on the terminal: answer with none.
int NoPassword(char*, int, int, void*) { return -1; }

std::string TimeText(const ASN1_TIME* time) {
  const Bio bio(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(bio.get(), time);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

std::string SubjectText(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<Certificates> ReadCertificates(const CertificateFiles& files) {
  ESS_ASSIGN_OR_RETURN(const std::string chain,
                       ReadConfiguredFile("tls_certificate", files.certificate, kMaxBytes));
  ESS_ASSIGN_OR_RETURN(const std::string key_text,
                       ReadConfiguredFile("tls_key", files.key, kMaxBytes));
  const std::vector<Certificate> certificates = ParseCertificates(chain);
  if (certificates.empty()) {
    return Wrong("tls_certificate", files.certificate, "holds no certificates in PEM format");
  }
  X509* const own = certificates.front().get();
  const Bio key_bio = Open(key_text);
  const Key key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return Wrong("tls_key", files.key, "holds no private key in PEM format without a password");
  }
  const bool matches = X509_check_private_key(own, key.get()) == 1;
  ERR_clear_error();
  if (!matches) {
    return Wrong(
        "tls_key", files.key,
        fmt::format("is not the key of the first certificate of '{}'", files.certificate.string()));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0) {
    return Wrong("tls_certificate", files.certificate,
                 fmt::format("is not valid before {}", TimeText(X509_get0_notBefore(own))));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0) {
    return Wrong("tls_certificate", files.certificate,
                 fmt::format("has expired on {}", TimeText(X509_get0_notAfter(own))));
  }
  Certificates result{.identity = chain + "\n" + key_text,
                      .client_ca = "",
                      .summary = fmt::format("{}, valid until {}", SubjectText(own),
                                             TimeText(X509_get0_notAfter(own)))};
  if (!files.client_ca.empty()) {
    ESS_ASSIGN_OR_RETURN(result.client_ca,
                         ReadConfiguredFile("tls_client_ca", files.client_ca, kMaxBytes));
    if (ParseCertificates(result.client_ca).empty()) {
      return Wrong("tls_client_ca", files.client_ca, "holds no certificates in PEM format");
    }
  }
  return result;
}

}  // namespace ess::security
