#include "server/jobs/python_json.h"

#include <cmath>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace ess::jobs {
namespace {

std::string Number(double value) {
  std::string out;
  AppendJsonNumber(value, out);
  return out;
}

std::string Text(const std::string& text) {
  std::string out;
  AppendJsonString(text, out);
  return out;
}

// What Python 3.11 prints for json.dumps of the same values.
TEST(PythonJsonTest, NumbersAreWhatPythonPrints) {
  EXPECT_EQ(Number(0.0), "0.0");
  EXPECT_EQ(Number(-0.0), "-0.0");
  EXPECT_EQ(Number(3.0), "3.0");
  EXPECT_EQ(Number(0.1), "0.1");
  EXPECT_EQ(Number(0.0001), "0.0001");
  EXPECT_EQ(Number(0.00001), "1e-05");
  EXPECT_EQ(Number(1.5e-7), "1.5e-07");
  EXPECT_EQ(Number(123456789012345680.0), "1.2345678901234568e+17");
  EXPECT_EQ(Number(1e15), "1000000000000000.0");
  EXPECT_EQ(Number(1e16), "1e+16");
  EXPECT_EQ(Number(5e-324), "5e-324");
  EXPECT_EQ(Number(static_cast<double>(0.1F)), "0.10000000149011612");
  EXPECT_EQ(Number(std::nan("")), "null");
}

TEST(PythonJsonTest, NoNumberIsLongerThanItsLimit) {
  for (const double value :
       {-std::numeric_limits<double>::max(), -std::numeric_limits<double>::min(),
        -std::numeric_limits<double>::denorm_min(), -1.2345678901234567e-5,
        -static_cast<double>(std::numeric_limits<float>::denorm_min()), -0.00012345678901234567,
        -1234567890123456.7}) {
    EXPECT_LE(Number(value).size(), static_cast<size_t>(kMaxNumberBytes)) << value;
  }
}

TEST(PythonJsonTest, StringsAreEscapedAsPythonDoes) {
  EXPECT_EQ(Text("plain"), R"("plain")");
  EXPECT_EQ(Text("a\"b\\c/d"), R"("a\"b\\c/d")");
  EXPECT_EQ(Text("\n\r\t\f\b"), R"("\n\r\t\f\b")");
  EXPECT_EQ(Text(std::string("\0\x1f\x7f", 3)), "\"\\u0000\\u001f\x7f\"");
  EXPECT_EQ(Text("é €"), "\"é €\"");
}

}  // namespace
}  // namespace ess::jobs
