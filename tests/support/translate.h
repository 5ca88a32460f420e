#pragma once

namespace praetor::testing {

/// Where the bytes of an address of a device's are; any other address as it is. May throw.
using Translate = void* (*)(void*);

}  // namespace praetor::testing
