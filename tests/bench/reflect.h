/* What reflect.bpf.c and reflect.c share: what is being done, how latencies are counted. */
#pragma once

enum reflect_mode {
	REFLECT_NOT,
	REFLECT_MESSAGES,
	REFLECT_CONNECTIONS, /* each that ends is followed by another */
	REFLECT_LAST,	     /* connections come to their end */
};

#define REFLECT_MESSAGE	     64	   /* bytes that are asked, and answered */
#define REFLECT_BUCKET_SHIFT 10	   /* a bucket is 1.024 us wide */
#define REFLECT_BUCKETS	     32768 /* to 33 ms; what is longer is in the last */
