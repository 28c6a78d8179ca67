#include "server/base/sha256.h"

#include <string>

#include "gtest/gtest.h"

namespace ess {
namespace {

// Examples of FIPS 180-4, published by NIST.
TEST(Sha256Test, HasTheDigestsOfTheStandard) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256Test, PiecesGiveTheDigestOfTheWhole) {
  const std::string text(1000, 'x');
  Sha256 pieces;

  pieces.Add(std::string_view(text).substr(0, 1));
  pieces.Add(std::string_view(text).substr(1, 700));
  pieces.Add(text.data() + 701, 299);

  EXPECT_EQ(pieces.Hex(), Sha256Hex(text));
}

}  // namespace
}  // namespace ess
