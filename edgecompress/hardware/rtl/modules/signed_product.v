// Product of two signed numbers: by a DSP block, or by a row of adders per bit of b. Sums of
// rows cost a look-up table a bit, less than a tree of full adders.
module signed_product #(
    parameter A_BITS = 8,
    parameter B_BITS = 8,
    parameter USE_DSP = 1
) (
    input  wire signed [A_BITS-1:0]        a,
    input  wire signed [B_BITS-1:0]        b,
    output wire signed [A_BITS+B_BITS-1:0] product
);
    genvar j;
    generate
        if (USE_DSP) begin : block
            (* use_dsp = "yes" *)
            wire signed [A_BITS+B_BITS-1:0] full;
            assign full = a * b;
            assign product = full;
        end else begin : adders
            // Row j adds a to what is left of the rows before it, without their lowest bit, if
            // bit j of b is set; the sign bit of b counts negative. A row reads the one before it:
            // no loop, though the rows are in one array.
            /* verilator lint_off UNOPTFLAT */
            wire signed [A_BITS:0] rest [0:B_BITS-1];
            for (j = 0; j < B_BITS; j = j + 1) begin : row
                wire signed [A_BITS-1:0] addend = b[j] ? a : {A_BITS{1'b0}};
                wire signed [A_BITS-1:0] high;
                if (j == 0) begin : first
                    assign high = {A_BITS{1'b0}};
                end else begin : later
                    assign high = rest[j-1][A_BITS:1];
                    assign product[j-1] = rest[j-1][0];
                end
                if (j == B_BITS - 1) begin : sign
                    assign rest[j] = high - addend;
                end else begin : plain
                    assign rest[j] = high + addend;
                end
            end
            /* verilator lint_on UNOPTFLAT */
            assign product[A_BITS+B_BITS-1:B_BITS-1] = rest[B_BITS-1];
        end
    endgenerate
endmodule
