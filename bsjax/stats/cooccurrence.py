"""Which concepts fire together: Z^T Z over tokens, exact, never dense.

The reference accumulates a dense K x K matrix, 534 GFLOP an image at K = 32,000. With about ten
codes active a token the same sum has about a hundred terms a token.
"""

import numpy as np
import scipy.sparse as sp


def cooccurrence(token_codes: sp.csr_array) -> sp.csr_array:
    """Sum over tokens of z z^T [K, K] in float64, both triangles and the diagonal."""
    codes = token_codes.astype(np.float64)
    product = sp.csr_array(codes.T.tocsr() @ codes)
    product.sort_indices()
    return product
