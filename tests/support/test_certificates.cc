#include "tests/support/test_certificates.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <functional>

#include "server/base/log.h"

namespace ess::testing {
namespace {

std::string Written(const std::function<int(BIO*)>& write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  ESS_CHECK(write(bio) == 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string result(text, static_cast<size_t>(size));
  BIO_free(bio);
  return result;
}

}  // namespace

TestCertificate MakeCertificate(const std::string& name, long begin_seconds, long end_seconds) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = X509_new();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), begin_seconds);
  X509_gmtime_adj(X509_getm_notAfter(certificate), end_seconds);
  X509_set_pubkey(certificate, key);
  X509_NAME* const subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  ESS_CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
  TestCertificate result{
      .certificate = Written([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate); }),
      .key = Written([&](BIO* bio) {
        return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
      })};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return result;
}

std::string EncryptKey(const std::string& key) {
  BIO* const bio = BIO_new_mem_buf(key.data(), static_cast<int>(key.size()));
  EVP_PKEY* const parsed = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  unsigned char password[] = "password";
  std::string result = Written([&](BIO* out) {
    return PEM_write_bio_PrivateKey(out, parsed, EVP_aes_256_cbc(), password, sizeof(password) - 1,
                                    nullptr, nullptr);
  });
  EVP_PKEY_free(parsed);
  BIO_free(bio);
  return result;
}

}  // namespace ess::testing
